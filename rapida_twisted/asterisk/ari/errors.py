"""What can go wrong with an Asterisk's REST interface (ARI): one class for each thing that a caller may do about it.

Each error names the credential, never what is secret in it, and quotes Asterisk's own message where there was one.
"""

from __future__ import annotations

from rapida_twisted.errors import RapidaError

__all__ = [
    "AriConflict",
    "AriError",
    "AriMalformed",
    "AriNotFound",
    "AriRejected",
    "AriUnauthorized",
    "AriUnreachable",
]


class AriError(RapidaError):
    """The base of all: Asterisk did not do what was asked of it.

    :param credential: the name of the credential that was used.
    :param message: Asterisk's own message, or what went wrong on the way, in one sentence.
    :param status: the HTTP status; 0 when there was no answer.
    """

    retryable: bool = False
    """Whether the same request may succeed a little later."""
    what = "ARI failed"

    def __init__(self, credential: str, message: str, *, status: int = 0) -> None:
        super().__init__(f"{self.what} (credential {credential}): {message}")
        self.credential = credential
        self.message = message
        self.status = status


class AriUnreachable(AriError):
    """No answer: refused, an unknown host, too slow, a broken connection, no good certificate; or not yet booted.

    :param placed: of an originate: False, the request never arrived and no call was placed; None, nobody knows (then
        never dial again, but :meth:`~rapida_twisted.asterisk.ari.client.AriClient.abandon` the channel).
    """

    retryable = True
    what = "ARI is not reachable"

    def __init__(self, credential: str, message: str, *, status: int = 0, placed: bool | None = None) -> None:
        super().__init__(credential, message, status=status)
        self.placed = placed


class AriUnauthorized(AriError):
    """401 or 403: the user or the password is wrong, or this user may not do that."""

    what = "ARI refused the user or the password"


class AriNotFound(AriError):
    """404: no such channel, application or variable."""

    what = "ARI found nothing"


class AriConflict(AriError):
    """409 and 412: the channel is not where it must be for this (not in Stasis, not up), or its id is taken."""

    what = "ARI can't do that with this channel"


class AriRejected(AriError):
    """Any other refusal, as 400, 422 and 500 "Allocation failed": no such endpoint or trunk, a bad parameter."""

    what = "ARI refused"


class AriMalformed(AriError):
    """The answer is not ARI's: no JSON, not of the right form, or endless. Perhaps the URL leads to something else."""

    what = "this is not ARI's answer"
