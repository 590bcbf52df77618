"""TLS for a phone: whom it trusts, and what to do when it does not. Certificates are always verified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from service_identity import VerificationError
from twisted.internet.ssl import Certificate, trustRootFromCertificates

__all__ = ["read_ca", "tls_problem"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read_ca(path: Path) -> Any:
    """A file with one or several certificates of CAs (PEM), as a trust root of Twisted's.

    :raises ValueError: there is none in it; the text is one sentence.
    """
    try:
        certificates = [Certificate.loadPEM(found) for found in _CERTIFICATE.findall(path.read_bytes())]
    except OSError as error:
        raise ValueError(f"the CA's file {path} can't be read: {error.strerror or error}") from None
    except crypto.Error:
        raise ValueError(f"the CA's file {path} has a certificate that can't be read") from None
    if not certificates:
        raise ValueError(f"the CA's file {path} has no certificate in it (PEM is expected)")
    return trustRootFromCertificates(certificates)


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
