"""The page "Place calls": its commands are ones, its tables are whole."""

from __future__ import annotations

import re
import shlex

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import CallStatus, EndReason
from rapida_twisted.settings import all_settings
from rapida_twisted.tools.ctl.main import make_parser
from tests.support.blocks import DOCS, named_blocks
from tests.web.in_memory import InMemoryHttp
from tests.web.test_outbound import PAGE, ScriptedOutbound

OF_MEDIA = {
    *[EndReason.ASSISTANT_HANGUP, EndReason.OPERATOR_HANGUP, EndReason.SHUTDOWN, EndReason.ASSISTANT_FAILED],
    *[EndReason.PROTOCOL_ERROR, EndReason.PEER_STALLED, EndReason.UPSTREAM_FAILED, EndReason.CONNECTION_LOST],
}
"""Reasons of any call, inbound ones too, which the page does not name."""


class CallsPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Read the page."""
        self.page = (DOCS / "calls.rst").read_text("utf-8")
        self.blocks = named_blocks("calls.rst")

    def test_commands(self) -> None:
        """Each command line of the control program is one that it takes."""
        lines = re.findall(r"^ +(rapida-media-ctl .*)$", self.page, re.MULTILINE)
        self.assertGreater(len(lines), 4)
        for line in lines:
            words = make_parser().parse_args(shlex.split(line)[1:])
            self.assertTrue(callable(words.run), line)

    def test_request(self) -> None:
        """What is POSTed is what the server takes."""
        found = re.search(
            r'-H "(Content-Type): (.*?)" .*-d \'(.*?)\'.*(/v1/.*/)\d+$', self.blocks["curl"].strip(), re.DOTALL
        )
        assert found is not None
        name, kind, body, path = found.groups()
        outbound = ScriptedOutbound()
        response = InMemoryHttp(outbound=outbound).request(
            f"{path}1", method="POST", headers={name: kind}, body=body.encode()
        )
        self.assertEqual((response.status, f"{path}1"), (201, PAGE), response.body)
        (call,) = outbound.placed
        self.assertEqual((call.to, call.caller, dict(call.variables)), ("100", "4930123", {"order": "4711"}))

    def test_statuses_and_reasons(self) -> None:
        """The page names each status of an outbound call, and each reason of one without media."""
        for word in (*CallStatus, *(set(EndReason) - OF_MEDIA)):
            self.assertIn(f"``{word.value}``", self.page)

    def test_limits(self) -> None:
        """The limits' defaults are those of the settings."""
        defaults = {setting.env: setting.default for setting in all_settings()}
        rows = re.findall(r"^``(\w+__\w+)`` +(\d+) ", self.page, re.MULTILINE)
        self.assertEqual(len(rows), 7)
        self.assertEqual(dict(rows), {name: defaults[name] for name, _ in rows})
