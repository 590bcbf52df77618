"""``rapida-media-ctl dial``: has the running server place a call, and follows it."""

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
from rapida_twisted.settings import Settings
from rapida_twisted.tools.ctl.dialplan import first_assistant
from rapida_twisted.tools.ctl.options import DEFAULT_URL, add_command, whole_number
from rapida_twisted.tools.ctl.server_client import NoAnswer, Reply, Server, ServerRefused, key_for, refused, with_server
from rapida_twisted.tools.ctl.table import table
from rapida_twisted.web.outbound import LONGEST_ANSWER_S, PLACE_TIMEOUT_S, SHORTEST_ANSWER_S

__all__ = ["Dialling", "add_commands", "change_text"]

POLL_S = 0.5
LAST_WORDS_S = 0.2
PATIENCE_S = 30.0
"""How long a server that places a call may be away while the call is followed: it may be started anew."""

_ENDS = frozenset(status.value for status in CallStatus if status.over)


def add_commands(commands: Any) -> None:
    """Add ``dial``."""
    dial = add_command(commands, "dial", _dial, "place a call", server=True, key=True)
    dial.add_argument("to", metavar="TO", help="the number; with a credential that has no trunk, an endpoint")
    dial.add_argument("--assistant", metavar="ID", help="who speaks on it [default: the first of the settings]")
    dial.add_argument("--from", metavar="NUMBER", dest="caller", help="the caller id that the other end sees")
    dial.add_argument("--credential", metavar="NAME", help="of the vault [default: the only one, or 'default']")
    into = dial.add_mutually_exclusive_group()
    into.add_argument(
        "--context", metavar="NAME", help="of the dialplan, for the answered call [default: OUTBOUND__CONTEXT]"
    )
    into.add_argument("--stasis", action="store_true", help="into the server's Stasis application: without a dialplan")
    dial.add_argument(
        "--variable",
        metavar="NAME=VALUE",
        type=_variable,
        action="append",
        default=[],
        help="of the channel, and of the call's record; may be repeated",
    )
    dial.add_argument(
        "--answer-timeout",
        metavar="SECONDS",
        type=whole_number(SHORTEST_ANSWER_S, LONGEST_ANSWER_S),
        help="how long it may ring [default: OUTBOUND__ANSWER_S]",
    )
    dial.add_argument(
        "--wait", action="store_true", help="tell how it goes until it is over; fail if it did not reach the assistant"
    )
    dial.add_argument("--json", action="store_true", help="print the server's own JSON, one object a line")


def _variable(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {printable(word)!r}")
    return name, value


def _dial(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if len(dict(words.variable)) != len(words.variable):
        words.parser.error("argument --variable: a name is given twice")
    assistant = words.assistant or first_assistant(Settings.from_mapping(environ))
    dialling = Dialling(words, assistant)
    try:
        return with_server(words.http, key_for(words, environ), dialling.run)
    except KeyboardInterrupt:
        print(f"rapida-media-ctl: {dialling.advice()}", file=sys.stderr)
        return 1


def _wanted(words: argparse.Namespace) -> dict[str, Any]:
    """The call as the server's page wants it described; what was not said is left to the server."""
    wanted = {
        "from": words.caller,
        "variables": dict(words.variable) or None,
        "credential": words.credential,
        "context": words.context,
        "stasis": words.stasis or None,
        "answer_timeout_s": words.answer_timeout,
    }
    return {"to": words.to, **{name: value for name, value in wanted.items() if value is not None}}


class Dialling:
    """One call, from the question to its end.

    :param words: the command line.
    """

    def __init__(self, words: argparse.Namespace, assistant: str) -> None:
        self._words = words
        self._path = f"/v1/talk/asterisk/outbound/{quote(assistant, safe='')}"
        self._context_id = ""

    async def run(self, server: Server) -> int:
        """Place it and, if so wished, follow it; the exit code."""
        placed = await self._place(server)
        status = str(placed.get("callStatus"))
        ids = [("context_id", self._context_id), ("channel_id", str(placed.get("channelId")))]
        if not self._words.wait:
            self._print(placed, table(None, [*ids, ("call_status", status)]))
            return 1 if status in (CallStatus.FAILED, CallStatus.CANCELLED) else 0
        self._print(placed, table(None, ids))
        last = await self._follow(server)
        # Who answered, and heard nobody, was not served.
        served = last["call_status"] == CallStatus.COMPLETED and last.get("reason") != EndReason.NO_MEDIA
        return 0 if served else 1

    def advice(self) -> str:
        """What to do about the call when nobody looks after it any more."""
        where = "" if self._words.http == DEFAULT_URL else f" --http {self._words.http}"
        if not self._context_id:
            return f"whether the call was placed is told by: rapida-media-ctl calls{where}"
        return f"the call goes on; to hang it up: rapida-media-ctl hangup {self._context_id}{where}"

    async def _place(self, server: Server) -> dict[str, Any]:
        try:
            reply = await server.ask(self._path, "POST", body=_wanted(self._words), timeout_s=PLACE_TIMEOUT_S + 5)
        except NoAnswer as error:
            if not error.asked:
                raise
            raise ServerRefused(f"{error}; {self.advice()}") from None
        if reply.status not in (201, 202) or not isinstance(reply.content, dict):
            raise _not_placed(reply)
        self._context_id = _uuid(reply.content.get("contextId"))
        if not self._context_id:
            raise _not_placed(reply)
        return reply.content

    async def _follow(self, server: Server) -> dict[str, Any]:
        """Print each change of the call's status; gives its last record."""
        began_s, told = server.reactor.seconds(), ""
        while True:
            record = await self._record(server)
            if record["call_status"] in _ENDS and record.get("status") == "claimed":
                # Asterisk has told that it is over; why its media ended is about to be written down.
                await deferLater(server.reactor, LAST_WORDS_S)
                record = await self._record(server)
            if record["call_status"] != told:
                told = record["call_status"]
                self._print(record, f"{server.reactor.seconds() - began_s:7.1f} s  {change_text(record)}")
            if told in _ENDS:
                return record
            await deferLater(server.reactor, POLL_S)

    async def _record(self, server: Server) -> dict[str, Any]:
        """The call's record; a server that is away for a moment is asked again."""
        until_s = server.reactor.seconds() + PATIENCE_S
        while True:
            try:
                reply = await server.ask(f"/v1/calls/{self._context_id}")
                if reply.status == 200 and isinstance(reply.content, dict) and reply.content.get("call_status"):
                    return {**reply.content, "call_status": str(reply.content["call_status"])}
                problem, passes = refused(reply), reply.status == 503
            except NoAnswer as error:
                problem, passes = error, True
            if not passes or server.reactor.seconds() > until_s:
                raise ServerRefused(f"{problem}; {self.advice()}")
            await deferLater(server.reactor, POLL_S)

    def _print(self, content: dict[str, Any], text: str) -> None:
        # At once, also into a pipe: somebody waits for it.
        print(json.dumps(content) if self._words.json else text, flush=True)


def change_text(record: Mapping[str, Any]) -> str:
    """A call's status; at its end also why it ended, and Asterisk's words for it."""
    status = str(record.get("call_status"))
    if status not in _ENDS:
        return printable(status)
    reason, cause, cause_text = (record.get(name) for name in ("reason", "cause", "cause_text"))
    text = status + (f", {reason}" if reason else "")
    text += f": {cause_text}" if cause_text else ""
    return printable(text + (f" (cause {cause})" if cause is not None else ""))


def _not_placed(reply: Reply) -> ServerRefused:
    """Why a call was not placed, and what may be done about it."""
    content = reply.content if isinstance(reply.content, dict) else {}
    text, context_id = str(refused(reply)), _uuid(content.get("contextId"))
    if context_id:
        text += f"; the call's record: rapida-media-ctl call {context_id}"
    return ServerRefused(f"{text}; it may work a little later" if content.get("retryable") is True else text)


def _uuid(word: Any) -> str:
    """A contextId that a server told; empty if it is none."""
    try:
        return str(uuid.UUID(word)) if isinstance(word, str) else ""
    except ValueError:
        return ""
