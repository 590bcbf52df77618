"""Why a connection or a request failed: Twisted nests errors, and reports a cancelled one in several ways."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError

__all__ = ["causes_of", "error_text", "tls_problem", "was_cancelled"]


def causes_of(error: BaseException) -> list[BaseException]:
    """The innermost errors of Twisted's nested ones."""
    reasons = getattr(error, "reasons", None)
    if not reasons:
        return [error]
    return [cause for reason in reasons for cause in causes_of(reason.value)]


def error_text(error: BaseException) -> str:
    """What went wrong, in the words of the innermost error, or its type if it has none."""
    cause = causes_of(error)[0]
    text = str(getattr(cause, "strerror", None) or cause)
    return text.rstrip(".") or type(cause).__name__


def tls_problem(error: BaseException | None, ca_option: str = "TLS__CA_FILE") -> str:
    """Why TLS failed, as a predicate of which the server is the subject; empty if something else failed.

    :param ca_option: names the file of a private CA.
    """
    for cause in causes_of(error) if error is not None else ():
        if isinstance(cause, VerificationError):
            return "has a certificate for another name"
        if isinstance(cause, SSL.Error):
            reasons = [reason for *_, reason in cause.args[0]] if cause.args and isinstance(cause.args[0], list) else []
            if "certificate verify failed" in reasons:
                return f"has a certificate that is not trusted ({ca_option} names the file of a private CA)"
            return f"failed in its TLS handshake ({', '.join(reasons) or 'no reason given'})"
    return ""


def was_cancelled(error: BaseException) -> bool:
    """Whether a request was cancelled. Agents and endpoints wrap that in errors of their own."""
    return any(isinstance(cause, CancelledError | ConnectingCancelledError) for cause in causes_of(error))
