"""One family of exceptions.

A :class:`RemoteProtocolError` is the peer's fault: it is logged, and its connection is closed. A
:class:`LocalProtocolError` is a mistake in the calling program.
"""

from __future__ import annotations

__all__ = [
    "CallEnded", "CallNotPlaced", "ContextClaimed", "ContextError", "ContextExpired", "Draining", "JournalFull",
    "LocalProtocolError", "PlayoutFull", "ProtocolError", "RapidaError", "RegistrationRefused", "RemoteProtocolError",
    "SettingsError", "StartError", "StoreUnavailable", "TooManyCalls", "TransferRefused", "UnknownAssistant",
    "UnknownContext", "UpstreamFailed",
]  # fmt: skip


class RapidaError(Exception):
    """The base of all errors of this library."""


class ProtocolError(RapidaError):
    """A side of a connection broke the rules of its wire protocol: the subclass says which side."""


class LocalProtocolError(ProtocolError):
    """The program passed a codec a frame that the protocol does not allow. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer sent data that the protocol does not allow. The connection can't go on."""


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
    """The call was registered, but its media connected too late."""

    word = "expired"


class ContextClaimed(ContextError):
    """Another media connection already has, or had, this call."""

    word = "already claimed"


class UnknownAssistant(RapidaError):
    """No assistant answers the id that a call is registered for."""


class StoreUnavailable(RapidaError):
    """The call store does not work now: a full disk, a locked file, a server that is down. A retry may succeed."""


class TooManyCalls(RapidaError):
    """A limit of calls (waiting or up) is reached."""


class JournalFull(RapidaError):
    """A call's journal has as many entries, or as much text, as it may have."""


class Draining(RapidaError):
    """The server is stopping, and accepts no new calls."""


class CallEnded(RapidaError):
    """The call is over: it can't be played to, transferred or asked for digits."""


class PlayoutFull(RapidaError):
    """More audio waits to be heard than the call's limit allows. Await what was played before."""


class TransferRefused(RapidaError):
    """The call can't be transferred there: ``TRANSFER__ALLOW`` does not list it, or it is no safe dial string."""


class CallNotPlaced(RapidaError):
    """An outbound call was not placed. The text is one sentence, without secrets.

    :param context_id: the call's; empty if it was not registered either.
    :param refused: the call itself can't be placed (no such endpoint, trunk or credential); otherwise Asterisk could
        not be reached.
    :param retryable: whether the same call may succeed a little later.
    """

    def __init__(self, message: str, *, context_id: str = "", refused: bool = False, retryable: bool = False) -> None:
        super().__init__(message)
        self.context_id = context_id
        self.refused = refused
        self.retryable = retryable


class RegistrationRefused(RapidaError):
    """A server did not register a call; ``status`` is its HTTP status (0: it did not answer)."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"registration refused: {status} {reason}" if status else f"registration failed: {reason}")
        self.status = status
        self.reason = reason


class UpstreamFailed(RapidaError):
    """The server that a call is bridged to did not accept it, or lost it. The text is one sentence, without secrets.

    :param word: what happened, in one word, for records and metrics: ``unreachable``, ``timeout``, ``tls``, ``refused``
        (it answered with an error), ``malformed`` (its answer can't be parsed), ``lost`` (the connection broke),
        ``stalled`` (no data moves any more), ``resting`` (the circuit breaker is open).
    :param status: its HTTP status, where there is one.
    :param of_call: whether it refuses this call alone; then the failure does not count against the server.
    """

    def __init__(self, word: str, message: str, *, status: int = 0, of_call: bool = False) -> None:
        super().__init__(message)
        self.word = word
        self.status = status
        self.of_call = of_call
