"""``rapida-media-ctl calls``, ``call``, ``hangup`` and ``ready``: what the running server says of its calls."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rapida_twisted.context import ContextStatus
from rapida_twisted.tools.ctl.options import add_command, context_id, whole_number
from rapida_twisted.tools.ctl.server_client import Reply, ServerRefused, ask_server, key_for, refused
from rapida_twisted.tools.ctl.table import table

__all__ = ["add_commands", "call_text", "calls_text"]

LARGEST_LIMIT = 1000
DEFAULT_LIMIT = 20

_HEAD = ("CONTEXT ID", "STATUS", "FROM", "TO", "ASSISTANT", "OUTBOUND", "OVER", "REGISTERED", "SECONDS", "REASON")


def add_commands(commands: Any) -> None:
    """Add the subcommands."""
    calls = add_command(commands, "calls", _calls, "show the newest calls", server=True, key=True)
    calls.add_argument("--status", choices=[status.value for status in ContextStatus], default="", help="only these")
    calls.add_argument(
        "--limit",
        metavar="N",
        type=whole_number(1, LARGEST_LIMIT),
        default=DEFAULT_LIMIT,
        help=f"at most N, up to {LARGEST_LIMIT} [default: {DEFAULT_LIMIT}]",
    )
    calls.add_argument("--json", action="store_true", help="print the server's own JSON")
    call = add_command(commands, "call", _call, "show one call", server=True, key=True)
    call.add_argument("context_id", metavar="CONTEXT_ID", type=context_id)
    call.add_argument("--json", action="store_true", help="print the server's own JSON")
    hangup = add_command(commands, "hangup", _hangup, "hang a call up", server=True, key=True)
    hangup.add_argument("context_id", metavar="CONTEXT_ID", type=context_id)
    add_command(commands, "ready", _ready, "tell whether the server can take calls", server=True)


def _calls(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    reply = _ask(words, environ, "/v1/calls", status=words.status, limit=str(words.limit))
    records = reply.content.get("calls") if isinstance(reply.content, dict) else None
    if reply.status != 200 or not isinstance(records, list):
        raise refused(reply)
    print(json.dumps(reply.content) if words.json else calls_text(records))
    return 0


def _call(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    reply = _ask(words, environ, f"/v1/calls/{words.context_id}")
    if reply.status != 200 or not isinstance(reply.content, dict):
        raise refused(reply)
    print(json.dumps(reply.content) if words.json else call_text(reply.content))
    return 0


def _hangup(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    reply = _ask(words, environ, f"/v1/calls/{words.context_id}", "DELETE")
    if reply.status != 202:
        raise refused(reply)
    print(f"{words.context_id}: it is being hung up")
    return 0


def _ready(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    reply = ask_server(words.http, "/readyz")
    content = reply.content if isinstance(reply.content, dict) else {}
    if reply.status == 200 and content.get("ready") is True:
        print("ready")
        return 0
    if reply.status != 503 or content.get("ready") is not False:
        raise refused(reply)
    why = "it is about to stop" if content.get("draining") else f"its call store is {content.get('store')}"
    raise ServerRefused(f"the server takes no calls now: {why}")


def _ask(words: argparse.Namespace, environ: Mapping[str, str], path: str, method: str = "GET", **query: str) -> Reply:
    return ask_server(words.http, path, key_for(words, environ), method, **query)


def calls_text(records: list[Any]) -> str:
    """Calls as a table, or a word that there are none."""
    rows = [_row(record) for record in records if isinstance(record, dict)]
    return table(_HEAD, rows) if rows else "no calls"


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    return (
        *(_word(record.get(name)) for name in ("context_id", "status", "caller", "called", "assistant_id")),
        _word(record.get("call_status")),
        _word(record.get("transport")),
        _moment(record.get("created")),
        _seconds(record),
        _word(record.get("reason")),
    )


def call_text(record: dict[str, Any]) -> str:
    """A call's record, a line for each field that says something."""
    rows = []
    for name, value in record.items():
        if name.endswith("_at") or value in ("", None, {}):
            continue  # the same times are there once more, for people
        if isinstance(value, dict):
            rows += [(f"{name}.{key}", _word(value[key])) for key in sorted(value)]
        else:
            rows.append((name, _word(value)))
    return table(None, rows)


def _word(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else json.dumps(value)


def _moment(value: Any) -> str:
    """``2026-11-23T07:15:00.123Z`` without its letters."""
    return value.partition(".")[0].replace("T", " ") if isinstance(value, str) else "-"


def _seconds(record: dict[str, Any]) -> str:
    """How long it was up, from its media to its end."""
    began, ended = record.get("claimed_at"), record.get("ended_at")
    if not isinstance(began, int | float) or not isinstance(ended, int | float):
        return "-"
    return f"{max(0.0, ended - began):.1f}"
