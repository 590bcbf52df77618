"""Which certificates a TLS client trusts. They are always verified: there is no switch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

__all__ = ["read_ca", "tls_options"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read_ca(path: Path) -> Any:
    """The trust root of a file with CA certificates (PEM).

    :raises ValueError: the file has none; the text is one sentence.
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


def tls_options(host: str, ca_file: str = "") -> Any:
    """Verifies a server by its name, against the CAs in the file or the public ones.

    :raises ValueError: the file has no CA; the text is one sentence.
    """
    return optionsForClientTLS(host, read_ca(Path(ca_file))) if ca_file else optionsForClientTLS(host)
