"""``rapida-media-ctl calls``, ``call``, ``hangup`` and ``ready``: show and end the calls of a running server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from rapida_twisted.context import ContextStatus
from rapida_twisted.tools.command_line import whole_number
from rapida_twisted.tools.ctl.options import add_command, context_id
from rapida_twisted.tools.ctl.server_client import Response, ServerRefused, key_for, refusal, request
from rapida_twisted.tools.terminal import has_colour, table

__all__ = ["add_commands", "call_text", "calls_text"]

LARGEST_LIMIT = 1000
DEFAULT_LIMIT = 20

_HEAD = ("CONTEXT ID", "STATUS", "FROM", "TO", "ASSISTANT", "OUTBOUND", "OVER", "REGISTERED", "SECONDS", "REASON")
_PLAIN_COLUMNS = ("context_id", "status", "caller", "called", "assistant_id", "call_status", "transport")


def add_commands(commands: Any) -> None:
    calls = add_command(commands, "calls", _calls, server=True, key=True)
    calls.add_argument(
        "--status", choices=[status.value for status in ContextStatus], default="", help="only calls in this status"
    )
    calls.add_argument(
        "--limit",
        metavar="N",
        type=whole_number(1, LARGEST_LIMIT),
        default=DEFAULT_LIMIT,
        help=f"at most N, up to {LARGEST_LIMIT} [default: {DEFAULT_LIMIT}]",
    )
    call = add_command(commands, "call", _call, server=True, key=True)
    hang_up = add_command(commands, "hangup", _hang_up, server=True, key=True)
    for parser in (call, hang_up):
        parser.add_argument("context_id", metavar="CONTEXT_ID", type=context_id)
    for parser in (calls, call):
        parser.add_argument("--json", action="store_true", help="print the server's own JSON")
    add_command(commands, "ready", _ready, server=True)


def _calls(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    response = _request(arguments, environ, "", status=arguments.status, limit=str(arguments.limit))
    if not isinstance(records := response.content.get("calls"), list):
        raise refusal(response)
    print(json.dumps(response.content) if arguments.json else calls_text(records, has_colour(sys.stdout)))
    return 0


def _call(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    record = _request(arguments, environ, f"/{arguments.context_id}").content
    print(json.dumps(record) if arguments.json else call_text(record, has_colour(sys.stdout)))
    return 0


def _hang_up(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    response = request(arguments.http, f"/v1/calls/{arguments.context_id}", key_for(arguments, environ), "DELETE")
    if response.status != 202:
        raise refusal(response)
    print(f"{arguments.context_id}: the server is hanging up")
    return 0


def _ready(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    response = request(arguments.http, "/readyz")
    content = response.content if isinstance(response.content, dict) else {}
    if response.status == 200 and content.get("ready") is True:
        print("ready")
        return 0
    if response.status != 503 or content.get("ready") is not False:
        raise refusal(response)
    reason = "it is about to stop" if content.get("draining") else f"its call store is {content.get('store')}"
    raise ServerRefused(f"the server takes no calls now: {reason}")


def _request(arguments: argparse.Namespace, environ: Mapping[str, str], path: str, **query: str) -> Response:
    """The response with a JSON object."""
    response = request(arguments.http, f"/v1/calls{path}", key_for(arguments, environ), **query)
    if response.status != 200 or not isinstance(response.content, dict):
        raise refusal(response)
    return response


def calls_text(records: list[Any], coloured: bool = False) -> str:
    rows = [_row(record) for record in records if isinstance(record, dict)]
    return table(_HEAD, rows, coloured) if rows else "no calls"


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    columns = (_text(record.get(name)) for name in _PLAIN_COLUMNS)
    return (*columns, _time(record.get("created")), _duration(record), _text(record.get("reason")))


def call_text(record: dict[str, Any], coloured: bool = False) -> str:
    """A call's record as a table of its fields, without the empty ones."""
    rows = []
    for name, value in record.items():
        if name.endswith("_at") or value in ("", None, {}):
            continue  # The record holds each time a second time, in readable form.
        if isinstance(value, dict):
            rows += [(f"{name}.{key}", _text(value[key])) for key in sorted(value)]
        else:
            rows.append((name, _text(value)))
    return table(None, rows, coloured)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return value if isinstance(value, str) else json.dumps(value)


def _time(value: Any) -> str:
    """``2026-11-23T07:15:00.123Z`` as ``2026-11-23 07:15:00``."""
    return value.partition(".")[0].replace("T", " ") if isinstance(value, str) else "-"


def _duration(record: dict[str, Any]) -> str:
    """Seconds from the start of the media to its end."""
    start_s, end_s = record.get("claimed_at"), record.get("ended_at")
    if not isinstance(start_s, int | float) or not isinstance(end_s, int | float):
        return "-"
    return f"{max(0.0, end_s - start_s):.1f}"
