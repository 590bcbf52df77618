"""The server's record of a call, which says what the phone cannot hear: that the assistant failed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from rapida_twisted.context import ContextStatus
from rapida_twisted.net.bounded_body import read_body
from rapida_twisted.net.untrusted_text import printable

__all__ = ["CallRecord", "fetch_record"]

MAX_BYTES = 1_000_000
TIMEOUT_S = 2.0
"""The time limit of all requests for a record. The server writes the end of a call just after it."""
POLL_S = 0.1


@dataclass(frozen=True)
class CallRecord:
    """How a call ended, as the server's record says."""

    status: str
    reason: str = ""
    detail: str = ""

    @property
    def problem(self) -> str:
        """Why the call failed; empty if it did not."""
        if self.status != ContextStatus.FAILED:
            return ""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason or "it failed"


async def fetch_record(url: str, api_key: str, treq_client: Any, reactor: Any) -> CallRecord | None:
    """The record once it has its end, or as it is after 2 s; None: this key cannot read it, or the server is gone.

    :param url: of the record.
    """
    found: list[CallRecord] = []
    fetching = Deferred.fromCoroutine(_follow(url, api_key, treq_client, reactor, found))
    try:
        await fetching.addTimeout(TIMEOUT_S, reactor)
    except CancelledError:
        raise
    except Exception:
        # The call is over, and judged without the record.
        pass
    return found[-1] if found else None


async def _follow(url: str, api_key: str, treq_client: Any, reactor: Any, found: list[CallRecord]) -> None:
    while True:
        response = await treq_client.get(
            url, headers={"x-api-key": api_key, "accept": "application/json"}, allow_redirects=False, unbuffered=True
        )
        body = await read_body(response, MAX_BYTES)
        if response.code != 200:
            return
        fields = json.loads(body)
        found.append(CallRecord(*(printable(str(fields.get(name) or "")) for name in ("status", "reason", "detail"))))
        if found[-1].status not in (ContextStatus.PENDING, ContextStatus.CLAIMED):
            return
        await deferLater(reactor, POLL_S)
