"""Sends one request to an Asterisk's REST interface, limited in time and size, with typed errors."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from OpenSSL.SSL import Error as TlsError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.web.iweb import IResponse

from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.ari.errors import (
    AriConflict,
    AriError,
    AriMalformed,
    AriNotFound,
    AriRejected,
    AriUnauthorized,
    AriUnreachable,
)
from rapida_twisted.net.bounded_body import read_body
from rapida_twisted.net.connection_errors import causes_of, error_text, tls_problem, was_cancelled
from rapida_twisted.net.untrusted_text import json_object, printable

__all__ = ["AriHttp", "ari_base", "authorization"]

MAX_RESPONSE_BYTES = 1_048_576
MAX_MESSAGE_LETTERS = 300

T = TypeVar("T")

_KINDS: dict[int, type[AriError]] = {
    401: AriUnauthorized,
    403: AriUnauthorized,
    404: AriNotFound,
    409: AriConflict,
    412: AriConflict,
}
_GATEWAY_LOST = (502, 504)
"""A proxy's statuses when Asterisk did not respond to it: Asterisk may have carried out the request."""


def ari_base(credential: AriCredential) -> str:
    """The credential's URL, which ends with ``/ari``."""
    return credential.ari_url.rstrip("/").removesuffix("/ari") + "/ari"


def authorization(credential: AriCredential) -> str:
    """The Authorization header: a URL with a password would appear in access logs."""
    return "Basic " + b64encode(f"{credential.ari_user}:{credential.ari_password}".encode()).decode("ascii")


class AriHttp:
    """Sends requests to one Asterisk.

    :param treq_client: a :class:`treq.client.HTTPClient`, whose agent verifies TLS.
    :param timeout_s: the time limit of a response, to its last byte.
    """

    def __init__(self, credential: AriCredential, *, treq_client: Any, reactor: Any, timeout_s: float) -> None:
        self.credential = credential
        self._base = ari_base(credential)
        self._treq = treq_client
        self._reactor = reactor
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"<AriHttp {self.credential.name} {self._base}>"

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the response's JSON; None if it is empty.

        :param path: below ``/ari/``, its segments quoted.
        """
        limit_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        requesting = Deferred.fromCoroutine(self._exchange(method, path, dict(query or {}), body))
        # Raise without a cause: causes hold whole requests, headers included.
        try:
            status, content = await requesting.addTimeout(limit_s, self._reactor)
        except (AriError, CancelledError):
            raise
        except DeferredTimeout:
            raise AriUnreachable(self.credential.name, f"no answer within {limit_s:g} s") from None
        except Exception as error:
            causes = causes_of(error)
            placed = False if any(_never_sent(cause) for cause in causes) else None
            problem = tls_problem(error)
            message = f"it {problem}" if problem else self._clean(error_text(error))
            raise AriUnreachable(self.credential.name, message, placed=placed) from None
        return self._read(status, content)

    def parse(self, convert: Callable[[Any], T], content: Any) -> T:
        """Convert a response's JSON.

        :raises AriMalformed: the conversion failed.
        """
        try:
            return convert(content)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise AriMalformed(self.credential.name, "the JSON is not of the expected form", status=200) from None

    async def _exchange(
        self, method: str, path: str, query: dict[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        options: dict[str, Any] = {} if body is None else {"json": dict(body)}
        try:
            # Following a redirect would send the password to another server.
            response = await self._treq.request(
                method,
                f"{self._base}/{path}",
                params=query,
                headers={"Authorization": authorization(self.credential)},
                allow_redirects=False,
                unbuffered=True,
                **options,
            )
            return response.code, await self._body(response)
        except Exception as error:
            if was_cancelled(error):
                raise CancelledError from None
            raise

    async def _body(self, response: IResponse) -> bytes:
        body = await read_body(response, MAX_RESPONSE_BYTES)
        if len(body) > MAX_RESPONSE_BYTES:
            raise AriMalformed(
                self.credential.name, f"more than {MAX_RESPONSE_BYTES:,} bytes long", status=response.code
            )
        return body

    def _read(self, status: int, body: bytes) -> Any:
        name = self.credential.name
        if status >= 300:
            raise self._refusal(status, body)
        if not body:
            return None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise AriMalformed(name, "no JSON", status=status) from None

    def _refusal(self, status: int, body: bytes) -> AriError:
        name, message = self.credential.name, self._clean(_message(body)) or f"HTTP status {status}"
        if status < 400:
            return AriRejected(name, f"HTTP status {status}: redirects are not followed", status=status)
        if status == 503 or status in _GATEWAY_LOST:
            placed = False if status == 503 else None
            return AriUnreachable(name, message, status=status, placed=placed)
        return _KINDS.get(status, AriRejected)(name, message, status=status)

    def _clean(self, text: str) -> str:
        """Text from outside, fit for a log: short, printable, and without the password that it may echo."""
        token = authorization(self.credential).removeprefix("Basic ")
        for secret in (token, self.credential.ari_password):
            text = text.replace(secret, "***")
        return printable(text.strip(), MAX_MESSAGE_LETTERS)


def _message(body: bytes) -> str:
    """ARI's message: in ``message``, or in ``error`` when an allocation failed."""
    content = json_object(body) or {}
    message = content.get("message") or content.get("error") or ""
    return message if isinstance(message, str) else ""


def _never_sent(cause: BaseException) -> bool:
    """Whether the error can only occur before the request is sent."""
    if isinstance(cause, ConnectError | DNSLookupError | VerificationError):
        return True
    return isinstance(cause, TlsError) and "certificate verify failed" in str(cause)
