"""Errors of an Asterisk's REST interface (ARI): one class for each way to handle them.

Each error names the credential, without its password, and quotes Asterisk's own message if there is one.
"""

from __future__ import annotations

from rapida_twisted.errors import RapidaError

__all__ = ["AriConflict", "AriError", "AriMalformed", "AriNotFound", "AriRejected", "AriUnauthorized", "AriUnreachable"]


class AriError(RapidaError):
    """The base class: Asterisk did not carry out a request.

    :param credential: the credential's name.
    :param message: Asterisk's message, or the problem on the way, in one sentence.
    :param status: the HTTP status; 0 without a response.
    """

    retryable: bool = False
    """Whether the same request may succeed later."""
    what = "ARI failed"

    def __init__(self, credential: str, message: str, *, status: int = 0) -> None:
        super().__init__(f"{self.what} (credential {credential}): {message}")
        self.credential = credential
        self.message = message
        self.status = status


class AriUnreachable(AriError):
    """No response: refused, unknown host, timeout, broken connection, invalid certificate; or Asterisk is booting.

    :param placed: for an originate: False, the request never arrived and no call was placed; None, unknown (then never
        dial again, but :meth:`~rapida_twisted.asterisk.ari.client.AriClient.abandon` the channel).
    """

    retryable = True
    what = "ARI is not reachable"

    def __init__(self, credential: str, message: str, *, status: int = 0, placed: bool | None = None) -> None:
        super().__init__(credential, message, status=status)
        self.placed = placed


class AriUnauthorized(AriError):
    """401 or 403: the user or the password is wrong, or the user lacks the permission."""

    what = "ARI refused the user or the password"


class AriNotFound(AriError):
    """404: no such channel, application or variable."""

    what = "ARI found nothing"


class AriConflict(AriError):
    """409 and 412: the channel is in the wrong state (not in Stasis, not up), or its id is in use."""

    what = "the channel is in the wrong state for ARI's request"


class AriRejected(AriError):
    """Any other refusal, such as 400, 422 and 500 "Allocation failed": unknown endpoint or trunk, bad parameter."""

    what = "ARI refused"


class AriMalformed(AriError):
    """The response is not ARI's: no JSON, of the wrong form, or too long. The URL may be another server's."""

    what = "this is not a response of ARI"
