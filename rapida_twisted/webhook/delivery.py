"""Delivers a notice: one signed POST, limited in time and size."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.web.iweb import IResponse

from rapida_twisted import __version__
from rapida_twisted.net.bounded_body import read_body
from rapida_twisted.net.connection_errors import causes_of, tls_problem, was_cancelled

__all__ = ["Answer", "Receiver", "sign"]

TRY_S = 10.0
"""Time limit (s) of an answer's status, connecting included."""
BODY_S = 2.0
"""Time limit (s) of an answer's body, which is read only to keep the connection."""
MOST_BODY_BYTES = 65_536
LONGEST_RETRY_AFTER_S = 300.0


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of ``X-Rapida-Signature``: ``t=<timestamp>,v1=<HMAC-SHA256 of "<timestamp>." and the body, in hex>``.

    :param timestamp: of this attempt (UNIX s). It is signed, too, against replays.
    """
    digest = hmac.digest(secret.encode(), b"%d." % timestamp + body, "sha256")
    return f"t={timestamp},v1={digest.hex()}"


@dataclass(frozen=True)
class Answer:
    """The outcome of one attempt."""

    status: int
    """0: no answer."""
    text: str
    retry_after_s: float = 0.0


class Receiver:
    """The address that notices are POSTed to."""

    def __init__(self, url: str, secret: str, treq_client: Any, reactor: Any, now: Callable[[], float]) -> None:
        self.where = _where(url)
        self._url = url
        self._secret = secret
        self._treq = treq_client
        self._reactor = reactor
        self._now = now

    async def post(self, body: bytes) -> Answer:
        """Make one attempt. Raises only CancelledError."""
        asking = Deferred.fromCoroutine(self._request(body))
        try:
            response = await asking.addTimeout(TRY_S, self._reactor)
        except CancelledError:
            raise
        except DeferredTimeout:
            return Answer(0, f"no answer within {TRY_S:g} s")
        except Exception as error:
            return Answer(0, _sentence(error))
        await self._discard(response)
        text = f"HTTP status {response.code}" + (" (not followed)" if 300 <= response.code < 400 else "")
        return Answer(response.code, text, _retry_after_s(response))

    async def _request(self, body: bytes) -> IResponse:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"rapida-media/{__version__}",
            "X-Rapida-Signature": sign(self._secret, int(self._now()), body),
        }
        try:
            # A redirect could send call data to another server.
            response: IResponse = await self._treq.post(
                self._url, data=body, headers=headers, allow_redirects=False, unbuffered=True
            )
        except Exception as error:
            if was_cancelled(error):
                raise CancelledError from None
            raise
        return response

    async def _discard(self, response: IResponse) -> None:
        reading = read_body(response, MOST_BODY_BYTES).addTimeout(BODY_S, self._reactor)
        # The status alone matters: errors of the body are ignored.
        await reading.addErrback(lambda _: b"")


def _where(url: str) -> str:
    """The URL without parts that may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _retry_after_s(response: IResponse) -> float:
    """The pause that the receiver asks for; dates are ignored."""
    values = response.headers.getRawHeaders(b"Retry-After", [])
    if response.code not in (429, 503) or not values or not re.fullmatch(rb"[0-9]{1,9}", values[0].strip()):
        return 0.0
    return min(float(values[0]), LONGEST_RETRY_AFTER_S)


def _sentence(error: BaseException) -> str:
    """What went wrong. Errors that may quote the URL are named by type only."""
    causes = causes_of(error)
    if problem := tls_problem(error):
        return f"it {problem}"
    if isinstance(causes[0], ConnectError | ConnectionClosed | DNSLookupError):
        return str(causes[0])
    return f"the request failed ({type(causes[0]).__name__})"
