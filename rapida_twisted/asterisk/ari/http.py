"""One request to an Asterisk's REST interface: bounded in time and size, its failures typed."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

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
from rapida_twisted.net.untrusted_text import printable

__all__ = ["AriHttp", "ari_base", "authorization"]

MAX_ANSWER_BYTES = 1_048_576
MAX_MESSAGE_LETTERS = 300

_KINDS: dict[int, type[AriError]] = {
    401: AriUnauthorized,
    403: AriUnauthorized,
    404: AriNotFound,
    409: AriConflict,
    412: AriConflict,
}
_GATEWAY_LOST = (502, 504)
"""A proxy's answers when it got none from Asterisk: the request may have been carried out."""


def ari_base(credential: AriCredential) -> str:
    """The credential's URL with ``/ari`` at its end, written there or not."""
    return credential.ari_url.rstrip("/").removesuffix("/ari") + "/ari"


def authorization(credential: AriCredential) -> str:
    """The value of the Authorization header: credentials in a URL would be in access logs."""
    return "Basic " + b64encode(f"{credential.ari_user}:{credential.ari_password}".encode()).decode("ascii")


class AriHttp:
    """Asks one Asterisk.

    :param treq_client: a :class:`treq.client.HTTPClient`. Its agent decides how TLS is verified: Twisted's default
        verifies, and a private CA goes into the agent's context factory.
    :param reactor: provides IReactorTime.
    :param timeout_s: how long an answer may take, to its last byte.
    """

    def __init__(self, credential: AriCredential, *, treq_client: Any, reactor: Any, timeout_s: float) -> None:
        self.credential = credential
        self._base = ari_base(credential)
        self._treq = treq_client
        self._reactor = reactor
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"<AriHttp {self.credential.name} {self._base}>"

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Give the answer's JSON; None if it is empty.

        :param path: below ``/ari/``, its parts quoted.
        :raises AriError: see there.
        """
        limit_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        asking = Deferred.fromCoroutine(self._exchange(method, path, dict(query or {}), body))
        # Nothing is chained to what is raised here: the causes hold whole requests, and headers with them.
        try:
            status, answer = await asking.addTimeout(limit_s, self._reactor)
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
        return self._read(status, answer)

    async def _exchange(
        self, method: str, path: str, query: dict[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        options: dict[str, Any] = {} if body is None else {"json": dict(body)}
        try:
            # A redirect would carry the password to somebody else.
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
        body = await read_body(response, MAX_ANSWER_BYTES)
        if len(body) > MAX_ANSWER_BYTES:
            raise AriMalformed(self.credential.name, f"more than {MAX_ANSWER_BYTES:,} bytes long", status=response.code)
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
        """A stranger's text, fit for a log: short, printable, and without the secret should it be echoed there."""
        token = authorization(self.credential).removeprefix("Basic ")
        for secret in (token, self.credential.ari_password):
            text = text.replace(secret, "***")
        return printable(text.strip(), MAX_MESSAGE_LETTERS)


def _message(body: bytes) -> str:
    """ARI says it as ``message``; as ``error`` when an allocation failed."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(answer, dict):
        return ""
    message = answer.get("message") or answer.get("error") or ""
    return message if isinstance(message, str) else ""


def _never_sent(cause: BaseException) -> bool:
    """Whether this can only have happened before the request was sent."""
    if isinstance(cause, ConnectError | DNSLookupError | VerificationError):
        return True
    return isinstance(cause, TlsError) and "certificate verify failed" in str(cause)
