"""One family of exceptions.

What a peer did wrong and what we did wrong are two classes: a :class:`RemoteProtocolError` is reported and the peer's
connection is closed, a :class:`LocalProtocolError` is a mistake in the calling program.
"""

from __future__ import annotations

__all__ = [
    "CallEnded",
    "CallNotPlaced",
    "ContextClaimed",
    "ContextError",
    "ContextExpired",
    "Draining",
    "JournalFull",
    "LocalProtocolError",
    "PlayoutFull",
    "ProtocolError",
    "RapidaError",
    "RegistrationRefused",
    "RemoteProtocolError",
    "SettingsError",
    "StartError",
    "StoreUnavailable",
    "TooManyCalls",
    "TransferRefused",
    "UnknownAssistant",
    "UnknownContext",
    "UpstreamFailed",
]


class RapidaError(Exception):
    """The base of all errors of this library."""


class ProtocolError(RapidaError):
    """Somebody broke the rules of a wire protocol: see the two subclasses for who."""


class LocalProtocolError(ProtocolError):
    """This program asked a codec for something that the protocol does not allow. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow. The connection can't go on."""


class SettingsError(RapidaError):
    """An option, an environment variable or an assistant's argument can't be used. The text is one sentence."""


class StartError(RapidaError):
    """The service can't start: a port is taken, the store can't be opened. The text is one sentence."""


class ContextError(RapidaError):
    """A media connection's contextId can't be used; ``word`` says why in one word, for logs and metrics."""

    word = "refused"

    def __init__(self, context_id: str, detail: str = "") -> None:
        super().__init__(f"context {context_id} is {self.word}" + (f": {detail}" if detail else ""))
        self.context_id = context_id


class UnknownContext(ContextError):
    """No call was registered under this contextId."""

    word = "unknown"


class ContextExpired(ContextError):
    """The call was registered, but its media came too late."""

    word = "expired"


class ContextClaimed(ContextError):
    """Another media connection already has, or had, this call."""

    word = "already claimed"


class UnknownAssistant(RapidaError):
    """No assistant answers the id that a call is registered for."""


class StoreUnavailable(RapidaError):
    """The call store does not answer: a full disk, a locked file, a server that is down. Trying again may work."""


class TooManyCalls(RapidaError):
    """A limit of calls (waiting or up) is reached."""


class JournalFull(RapidaError):
    """A call's journal has as many entries, or as much text, as it may have."""


class Draining(RapidaError):
    """The server is about to stop and takes no new calls."""


class CallEnded(RapidaError):
    """The call has ended; what was asked of it can't be done any more."""


class PlayoutFull(RapidaError):
    """More is already waiting to be heard than the call's limit allows. Wait for what was said before."""


class TransferRefused(RapidaError):
    """A call may not be sent there: the settings' whitelist does not name it, or it is no safe dial string."""


class CallNotPlaced(RapidaError):
    """An outbound call was not placed. The text is one sentence, without secrets.

    :param context_id: the call's; empty if it was not registered either.
    :param refused: the call itself can't be placed (no such endpoint, trunk or credential); if not, what stands between
        us and Asterisk failed.
    :param retryable: whether the same call may succeed a little later.
    """

    def __init__(self, message: str, *, context_id: str = "", refused: bool = False, retryable: bool = False) -> None:
        super().__init__(message)
        self.context_id = context_id
        self.refused = refused
        self.retryable = retryable


class RegistrationRefused(RapidaError):
    """A server did not register a call; ``status`` is its HTTP status (0: no answer at all)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"registration refused: {status} {reason}" if status else f"registration failed: {reason}")
        self.status = status
        self.reason = reason


class UpstreamFailed(RapidaError):
    """The server that a call is carried on to does not take it, or lost it. The text is one sentence, without secrets.

    :param word: what happened, in one word, for records and metrics: ``unreachable``, ``timeout``, ``tls``, ``refused``
        (it answered, and said no), ``malformed`` (its answer makes no sense), ``lost`` (it ended in the middle),
        ``stalled`` (it takes or sends nothing any more), ``resting`` (the circuit breaker is open).
    :param status: its HTTP status, where there is one.
    :param of_call: whether it is this call that it does not want, so that nothing is said about others.
    """

    def __init__(self, word: str, message: str, *, status: int = 0, of_call: bool = False) -> None:
        super().__init__(message)
        self.word = word
        self.status = status
        self.of_call = of_call
