"""TLS for a phone: what to do when a server is not trusted. Certificates are always verified."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError

__all__ = ["tls_problem"]


def tls_problem(error: BaseException | None) -> str:
    """Why a TLS connection did not come up, and what can be done; empty if it was not for TLS.

    :param error: how the connection ended; Twisted's nested errors are looked through.
    """
    reasons = getattr(error, "reasons", None)
    if reasons:
        return tls_problem(reasons[0].value)
    if isinstance(error, VerificationError):
        return "the server's certificate is not for this name: call the server by the name in it (--http)"
    if not isinstance(error, SSL.Error):
        return ""
    reasons = [reason for *_, reason in error.args[0]] if error.args else []
    if "certificate verify failed" in reasons:
        return "the server's certificate is not trusted: if a private CA signed it, name that CA's file (--ca)"
    return f"TLS failed ({', '.join(reasons) or 'no reason given'}): is this the server's port with TLS (--http)?"
