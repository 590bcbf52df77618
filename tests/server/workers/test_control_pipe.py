"""What a parent and its workers say to each other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.server.workers.control_pipe import Start, log_event, log_line
from rapida_twisted.settings import Settings

START = Start(
    number=2,
    row=3,
    settings=Settings.from_mapping({"MAX_CALLS": "7", "AUDIOSOCKET__ALLOW": "10.0.0.0/8"}).values,
    sockets=("HTTP", "AudioSocket"),
    ports={"HTTP": 9090},
    ari_socket="/run/ari",
)


class StartTests(SynchronousTestCase):
    """The first line."""

    def test_there_and_back(self) -> None:
        """It is one line, and says all."""
        line = START.line()
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual(Start.from_line(line), START)

    def test_another_version(self) -> None:
        """A worker of another version has its default for a setting that the supervisor does not know, and ignores one
        that it does not know itself."""
        values = {"OF_OLD": 1, "DRAIN_S": 7.0}
        start = Start.from_line(replace(START, settings=values).line())
        self.assertEqual(Settings.from_values(start.settings), Settings.from_mapping({"DRAIN_S": "7"}))


class LogTests(SynchronousTestCase):
    """A worker's log."""

    def event(self, **words: Any) -> LogEvent:
        """One event, as the parent gets it."""
        line = log_line({"log_level": LogLevel.warn, "log_time": 17.5, "log_namespace": "n", **words})
        self.assertEqual(line.count(b"\n"), 1)
        return log_event(json.loads(line)["log"])

    def test_event(self) -> None:
        """Its words, its level, when it was, and what can be told of its values."""
        event = self.event(log_format="call {id} of {who}", id="626162e8", who=object)
        self.assertEqual(formatEvent(event), "call 626162e8 of <class 'object'>")
        self.assertEqual((event["log_level"], event["log_time"], event["log_namespace"]), (LogLevel.warn, 17.5, "n"))
        self.assertEqual(event["id"], "626162e8")
        self.assertNotIn("who", event)

    @given(st.text(), st.text())
    def test_any_text(self, text: str, other: str) -> None:
        """Whatever a text has in it, braces and ends of lines, it comes as it was."""
        event = self.event(log_format="{text}", text=text, other=other)
        self.assertEqual((formatEvent(event), event["text"], event["other"]), (text, text, other))
