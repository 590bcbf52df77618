"""``rapida-media-ctl dial``: has the running server place a call, and follows the call's status."""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from twisted.internet.task import deferLater

from rapida_twisted.context import CallStatus, EndReason
from rapida_twisted.net.untrusted_text import printable
from rapida_twisted.tools.command_line import DEFAULT_URL, whole_number
from rapida_twisted.tools.ctl.dialplan import first_assistant
from rapida_twisted.tools.ctl.options import add_command
from rapida_twisted.tools.ctl.server_client import (
    NoResponse,
    Response,
    ServerClient,
    ServerRefused,
    key_for,
    refusal,
    run_with_server,
)
from rapida_twisted.tools.terminal import has_colour, table
from rapida_twisted.web.outbound import LONGEST_ANSWER_S, PLACE_TIMEOUT_S, SHORTEST_ANSWER_S

__all__ = ["DialCommand", "add_commands", "change_text"]

POLL_S = 0.5
END_DELAY_S = 0.2
"""Asterisk reports the end of a call before the server records why its media ended."""
PATIENCE_S = 30.0
"""How long the server may be unreachable while the command follows a call: long enough for a restart."""

_ENDS = frozenset(status.value for status in CallStatus if status.over)


def add_commands(commands: Any) -> None:
    dial = add_command(commands, "dial", _dial, server=True, key=True)
    dial.add_argument("to", metavar="TO", help="number to call; an endpoint if the credential has no trunk")
    dial.add_argument("--assistant", metavar="ID", help="assistant for the call [default: the first of the settings]")
    dial.add_argument("--from", metavar="NUMBER", dest="caller", help="caller id to send")
    dial.add_argument(
        "--credential", metavar="NAME", help="credential of the vault [default: the only one, or 'default']"
    )
    into = dial.add_mutually_exclusive_group()
    into.add_argument(
        "--context", metavar="NAME", help="dialplan context for the answered call [default: OUTBOUND__CONTEXT]"
    )
    into.add_argument("--stasis", action="store_true", help="send the answered call to the server's Stasis application")
    dial.add_argument(
        "--variable",
        metavar="NAME=VALUE",
        type=_variable,
        action="append",
        default=[],
        help="variable of the channel and of the call's record; may be repeated",
    )
    dial.add_argument(
        "--answer-timeout",
        metavar="SECONDS",
        type=whole_number(SHORTEST_ANSWER_S, LONGEST_ANSWER_S),
        help="maximum ringing time [default: OUTBOUND__ANSWER_S]",
    )
    dial.add_argument(
        "--wait",
        action="store_true",
        help="print each status until the end; fail unless the call reached the assistant",
    )
    dial.add_argument("--json", action="store_true", help="print the server's own JSON, one object a line")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {printable(text)!r}")
    return name, value


def _dial(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if len(dict(arguments.variable)) != len(arguments.variable):
        arguments.parser.error("argument --variable: two variables have the same name")
    assistant = arguments.assistant or first_assistant(environ)
    command = DialCommand(arguments, assistant)
    try:
        return run_with_server(arguments.http, key_for(arguments, environ), command.run)
    except KeyboardInterrupt:
        print(f"rapida-media-ctl: {command.advice()}", file=sys.stderr)
        return 1


def _body(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request's JSON; the server applies its defaults for what is missing."""
    members = {
        "from": arguments.caller,
        "variables": dict(arguments.variable) or None,
        "credential": arguments.credential,
        "context": arguments.context,
        "stasis": arguments.stasis or None,
        "answer_timeout_s": arguments.answer_timeout,
    }
    return {"to": arguments.to, **{name: value for name, value in members.items() if value is not None}}


class DialCommand:
    """Places one call, and follows it to its end."""

    def __init__(self, arguments: argparse.Namespace, assistant: str) -> None:
        self._arguments = arguments
        self._path = f"/v1/talk/asterisk/outbound/{quote(assistant, safe='')}"
        self._context_id = ""

    async def run(self, server: ServerClient) -> int:
        """Place the call and, with ``--wait``, follow it; returns the exit code."""
        placed = await self._place(server)
        status = str(placed.get("callStatus"))
        ids = [("context_id", self._context_id), ("channel_id", str(placed.get("channelId")))]
        if not self._arguments.wait:
            self._print(placed, table(None, [*ids, ("call_status", status)], has_colour(sys.stdout)))
            return 1 if status in (CallStatus.FAILED, CallStatus.CANCELLED) else 0
        self._print(placed, table(None, ids, has_colour(sys.stdout)))
        last = await self._follow(server)
        reached_assistant = last["call_status"] == CallStatus.COMPLETED and last.get("reason") != EndReason.NO_MEDIA
        return 0 if reached_assistant else 1

    def advice(self) -> str:
        """What the user can do about the call once this command stops following it."""
        where = "" if self._arguments.http == DEFAULT_URL else f" --http {self._arguments.http}"
        if not self._context_id:
            return f"to see whether the server placed the call: rapida-media-ctl calls{where}"
        return f"the call continues; to hang it up: rapida-media-ctl hangup {self._context_id}{where}"

    async def _place(self, server: ServerClient) -> dict[str, Any]:
        try:
            response = await server.request(
                self._path, "POST", body=_body(self._arguments), timeout_s=PLACE_TIMEOUT_S + 5
            )
        except NoResponse as error:
            if not error.may_have_arrived:
                raise
            raise ServerRefused(f"{error}; {self.advice()}") from None
        if response.status not in (201, 202) or not isinstance(response.content, dict):
            raise _not_placed(response)
        self._context_id = _uuid(response.content.get("contextId"))
        if not self._context_id:
            raise _not_placed(response)
        return response.content

    async def _follow(self, server: ServerClient) -> dict[str, Any]:
        """Print each change of the call's status; returns the last record."""
        start_s, printed = server.reactor.seconds(), ""
        while True:
            record = await self._record(server)
            if record["call_status"] in _ENDS and record.get("status") == "claimed":
                await deferLater(server.reactor, END_DELAY_S)
                record = await self._record(server)
            if record["call_status"] != printed:
                printed = record["call_status"]
                self._print(record, f"{server.reactor.seconds() - start_s:7.1f} s  {change_text(record)}")
            if printed in _ENDS:
                return record
            await deferLater(server.reactor, POLL_S)

    async def _record(self, server: ServerClient) -> dict[str, Any]:
        """The call's record; retries while the server is briefly unreachable."""
        until_s = server.reactor.seconds() + PATIENCE_S
        while True:
            try:
                response = await server.request(f"/v1/calls/{self._context_id}")
                if (
                    response.status == 200
                    and isinstance(response.content, dict)
                    and response.content.get("call_status")
                ):
                    return {**response.content, "call_status": str(response.content["call_status"])}
                problem, is_temporary = refusal(response), response.status == 503
            except NoResponse as error:
                problem, is_temporary = error, True
            if not is_temporary or server.reactor.seconds() > until_s:
                raise ServerRefused(f"{problem}; {self.advice()}")
            await deferLater(server.reactor, POLL_S)

    def _print(self, content: dict[str, Any], text: str) -> None:
        # Flushed: the reader of a pipe waits for each change, too.
        print(json.dumps(content) if self._arguments.json else text, flush=True)


def change_text(record: Mapping[str, Any]) -> str:
    """A call's status; at its end also the reason, and Asterisk's cause."""
    status = str(record.get("call_status"))
    if status not in _ENDS:
        return printable(status)
    reason, cause, cause_text = (record.get(name) for name in ("reason", "cause", "cause_text"))
    text = status + (f", {reason}" if reason else "")
    text += f": {cause_text}" if cause_text else ""
    return printable(text + (f" (cause {cause})" if cause is not None else ""))


def _not_placed(response: Response) -> ServerRefused:
    """Why the server did not place the call, and whether a retry may help."""
    content = response.content if isinstance(response.content, dict) else {}
    text, context_id = str(refusal(response)), _uuid(content.get("contextId"))
    if context_id:
        text += f"; the call's record: rapida-media-ctl call {context_id}"
    elif response.status == 404:
        text += "; name one of the server's assistants (--assistant)"
    return ServerRefused(f"{text}; try again later" if content.get("retryable") is True else text)


def _uuid(value: Any) -> str:
    """The value as a contextId; empty if it is none."""
    try:
        return str(uuid.UUID(value)) if isinstance(value, str) else ""
    except ValueError:
        return ""
