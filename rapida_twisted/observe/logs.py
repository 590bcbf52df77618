"""Formats log lines as text or JSON, masks secrets, and adds a call's contextId.

This is the last step before a line is written, so no caller has to mask secrets.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, LogEvent, eventAsText, formatEvent, formatTime
from zope.interface import implementer

from rapida_twisted.context import iso_utc
from rapida_twisted.credentials.masking import masked

__all__ = ["MaskingObserver", "context_id_of", "formatter_of", "json_line", "text_line"]

LONGEST_FIELD = 2000
"""Characters of a field; the message and a traceback are not cut."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UNSAFE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters except tab and newline, and those that turn the direction of text: a terminal or an editor would
show another line than the one that was written."""
_OURS = frozenset(("time", "level", "namespace", "message", "contextId", "traceback"))
_TWISTEDS = frozenset(("isError", "system", "format", "failure", "printed"))
"""Fields of Twisted's older log."""

Formatter = Callable[[LogEvent], "str | None"]


def formatter_of(log_format: str) -> Formatter:
    """The function that formats an event as a line: ``text`` or ``json``."""
    return json_line if log_format == "json" else text_line


def text_line(event: LogEvent) -> str | None:
    """A line as Twisted writes it; None for an empty event."""
    text = masked(eventAsText(event, includeTimestamp=False, includeSystem=False).rstrip("\n"))
    text = _UNSAFE.sub(_escape, text)
    if not text:
        return None
    context_id = context_id_of(event)
    if context_id and context_id not in text:
        first, newline, rest = text.partition("\n")
        text = f"{first} (call {context_id}){newline}{rest}"
    # A line that begins with a tab continues the previous one.
    text = text.replace("\n", "\n\t")
    return f"{formatTime(event.get('log_time'))} [{_system(event)}] {text}\n"


def json_line(event: LogEvent) -> str | None:
    """A line with one JSON object; None for an empty event."""
    message = formatEvent(event)
    traceback = _traceback(event)
    if not message and not traceback:
        return None
    level = event.get("log_level")
    line: dict[str, Any] = {
        "time": iso_utc(event.get("log_time", 0.0)),
        "level": level.name if level is not None else "info",
        "namespace": str(event.get("log_namespace") or "-"),
        "message": masked(message or traceback.strip().rpartition("\n")[2]),
    }
    context_id = context_id_of(event)
    if context_id:
        line["contextId"] = context_id
    if traceback:
        line["traceback"] = masked(traceback)
    for name, value in event.items():
        if name.startswith(("log_", "_")) or name in _OURS or name in _TWISTEDS or not _is_plain(value):
            continue
        if name not in ("id", "context_id") or value != context_id:
            line[name] = masked(value)[:LONGEST_FIELD] if isinstance(value, str) else value
    return json.dumps(line, separators=(",", ":")) + "\n"


def context_id_of(event: LogEvent) -> str:
    """The contextId of an event: its field ``id`` or ``context_id``, else the only contextId in its fields."""
    for name in ("id", "context_id"):
        value = event.get(name)
        if isinstance(value, str) and _UUID.fullmatch(value):
            return value
    found = {
        found
        for name, value in event.items()
        if isinstance(value, str) and not name.startswith("log_")
        for found in _UUID.findall(value)
    }
    return found.pop() if len(found) == 1 else ""


@implementer(ILogObserver)
class MaskingObserver:
    """Passes events without secrets to an observer of the user's.

    The event keeps only its plain fields.
    """

    def __init__(self, observer: Callable[[LogEvent], object]) -> None:
        self._observer = observer

    def __call__(self, event: LogEvent) -> None:
        kept: LogEvent = {
            name: masked(value) if isinstance(value, str) and name != "log_format" else value
            for name, value in event.items()
            if _is_plain(value) or name in ("log_level", "log_logger")
        }
        kept["log_text"] = masked("\n".join(part for part in (formatEvent(event), _traceback(event)) if part))
        kept["log_format"] = "{log_text}"
        self._observer(kept)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _system(event: LogEvent) -> str:
    system = event.get("log_system")
    if system is not None:
        return str(system)
    level = event.get("log_level")
    return f"{event.get('log_namespace', '-')}#{level.name if level is not None else '-'}"


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if failure is None:
        return ""
    try:
        return str(failure.getTraceback())
    except Exception as error:
        return f"(a traceback that can't be shown: {type(error).__name__})"


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
