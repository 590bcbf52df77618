"""Parses the reply to a registration at another server: the contextId, or the reason of a refusal."""

from __future__ import annotations

from uuid import UUID

from twisted.web.iweb import IResponse

from rapida_twisted.net.untrusted_text import printable

__all__ = ["MAX_REPLY_BYTES", "context_id_in", "refusal_reason"]

MAX_REPLY_BYTES = 64
MAX_REASON_CHARACTERS = 200

_REASONS = {
    400: "the server rejects these parameters",
    401: "the server does not know this API key",
    403: "the server forbids this",
    404: "the server has no such assistant",
    429: "too many calls wait at the server",
    503: "the server accepts no calls now",
}


def context_id_in(body: bytes) -> str:
    """The contextId as the server wrote it; empty if the body is not one."""
    try:
        text = body.decode("ascii").strip()
        UUID(text)
    except ValueError:
        return ""
    return text if len(body) <= MAX_REPLY_BYTES else ""


def refusal_reason(response: IResponse) -> str:
    """The server's own reason (X-Rapida-Error), or what the status means."""
    for value in response.headers.getRawHeaders(b"X-Rapida-Error", []):
        if text := printable(value.decode("utf-8", "replace").strip(), MAX_REASON_CHARACTERS):
            return text
    return _REASONS.get(response.code, "the server gave no reason")
