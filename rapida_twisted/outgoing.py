"""What all that this program asks of other HTTP servers has in common: its connections, and whom it trusts.

Certificates are always verified: there is no switch.
"""

from __future__ import annotations

import re
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, _HTTP11ClientFactory

__all__ = ["causes_of", "make_client", "read_ca", "tls_options", "was_cancelled"]

CONNECT_TIMEOUT_S = 5.0
IDLE_S = 10.0
"""Less than Asterisk's ``session_keep_alive`` (15 s): a POST on a connection that closes just then would be lost, and
nothing sends it again, since nobody knows whether it was carried out."""

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


def make_client(reactor: Any, ca_file: str = "") -> tuple[HTTPClient, HTTPConnectionPool]:
    """A client of HTTP servers, which keeps no cookies, and its connections.

    These are to be closed at the end, by ``closeCachedConnections()``.

    :param ca_file: the authorities to trust in the place of the public ones.
    :raises ValueError: there are none in that file; the text is one sentence.
    """
    pool = _Pool(reactor)
    pool.cachedConnectionTimeout = IDLE_S  # type: ignore[assignment]
    policy = BrowserLikePolicyForHTTPS(read_ca(Path(ca_file))) if ca_file else BrowserLikePolicyForHTTPS()
    agent = Agent(reactor, policy, connectTimeout=CONNECT_TIMEOUT_S, pool=pool)
    return HTTPClient(agent, IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))), pool


class _Factory(_HTTP11ClientFactory):
    # Two lines in the log for each connection say nothing.
    noisy = False


class _Pool(HTTPConnectionPool):
    _factory = _Factory


def tls_options(host: str, ca_file: str = "") -> Any:
    """How a host is verified that is connected to in another way than by :func:`make_client`.

    :raises ValueError: as :func:`make_client`.
    """
    return optionsForClientTLS(host, read_ca(Path(ca_file))) if ca_file else optionsForClientTLS(host)


def causes_of(error: BaseException) -> list[BaseException]:
    """The innermost errors of Twisted's nested ones."""
    reasons = getattr(error, "reasons", None)
    if not reasons:
        return [error]
    return [cause for reason in reasons for cause in causes_of(reason.value)]


def was_cancelled(error: BaseException) -> bool:
    """Whether a request ended since it was cancelled, which Agent and its endpoints tell in ways of their own."""
    return any(isinstance(cause, (CancelledError, ConnectingCancelledError)) for cause in causes_of(error))
