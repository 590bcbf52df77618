"""The log's lines."""

from __future__ import annotations

import ast
import json
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.logger import FileLogObserver, Logger, LogLevel, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import rapida_twisted
from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.observe.logs import MaskingObserver, context_id_of, formatter_of, json_line, text_line

ID = "6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11"
OTHER_ID = "11111111-2222-3333-4444-555555555555"
SECRET = "secret-of-the-logs"


def failing() -> Failure:
    """A failure whose text and traceback hold the secret."""
    try:
        raise ValueError(f"http://x/?k={SECRET}")
    except ValueError:
        return Failure()


class LinesTestCase(SynchronousTestCase):
    """A logger of the test's own."""

    def setUp(self) -> None:
        keep_out_of_logs(SECRET)
        self.events: list[Any] = []
        self.log = Logger("rapida_twisted.test", observer=self.events.append)

    def lines(self, log_format: str) -> list[str]:
        """What would be written."""
        return [line for line in map(formatter_of(log_format), self.events) if line is not None]

    def objects(self) -> list[dict[str, Any]]:
        """The same as JSON."""
        lines = self.lines("json")
        for line in lines:
            self.assertTrue(line.endswith("\n") and line.count("\n") == 1, line)
        return [json.loads(line) for line in lines]


class JsonTests(LinesTestCase):
    """One object a line."""

    def test_fields(self) -> None:
        """Time, level, namespace, message, contextId, and the event's own plain fields."""
        self.log.warn("call {id}: over, {why}", id=ID, why="lost", seconds=1.5, count=3, ok=True, nothing=None)
        self.events[0]["log_time"] = 1_795_000_000.25
        self.assertEqual(self.objects(), [{
            "time": "2026-11-18T11:06:40.250Z", "level": "warn", "namespace": "rapida_twisted.test",
            "message": f"call {ID}: over, lost", "contextId": ID,
            "why": "lost", "seconds": 1.5, "count": 3, "ok": True, "nothing": None,
        }])  # fmt: skip

    def test_what_is_not_plain(self) -> None:
        """Objects stand in the message alone; no field of an event can take the place of one of ours."""
        self.log.info("at {where}", where=Path("/x"), message="mine", nan=float("nan"), items=[SECRET])
        self.events[0]["level"] = "mine"
        (line,) = self.objects()
        self.assertEqual((line["message"], line["level"]), ("at /x", "info"))
        self.assertEqual(set(line), {"time", "level", "namespace", "message"})

    def test_failure(self) -> None:
        """A traceback is one field, without secrets."""
        self.log.failure("call {id}: broke", failing(), id=ID)
        (line,) = self.objects()
        self.assertIn("test_logs.py", line["traceback"])
        self.assertIn("ValueError: http://x/?k=***", line["traceback"])
        self.assertEqual(line["level"], "critical")
        self.assertNotIn(SECRET, json.dumps(line))

    def test_odd_letters(self) -> None:
        """A stranger's control characters and halves of surrogates break no line."""
        self.log.info("{text}", text="a\nb\r\x00\u2028\ud800")
        (line,) = self.objects()
        self.assertEqual(line["text"], "a\nb\r\x00\u2028\ud800")

    def test_long_field(self) -> None:
        """A field that a stranger has made long is cut."""
        self.log.info("x", text="y" * 9999)
        self.assertEqual(len(self.objects()[0]["text"]), 2000)

    def test_nothing(self) -> None:
        """An event without a text is no line."""
        self.log.info("")
        self.assertEqual(self.lines("json") + self.lines("text"), [])


class TextTests(LinesTestCase):
    """As Twisted writes it."""

    def test_unsafe_characters(self) -> None:
        """What would steer a terminal, or show a line in another order, is escaped."""
        text = "a\u202eb\u2066c\u2028d\u200fe\tf\ng"
        self.log.warn("from {caller}: {text}", caller="\x1b]0;x\x07\r\x9b2J", text=text)
        (line,) = self.lines("text")
        self.assertTrue(
            line.endswith("from \\x1b]0;x\\x07\\x0d\\x9b2J: a\\u202eb\\u2066c\\u2028d\\u200fe\tf\n\tg\n"), ascii(line)
        )

    def test_as_twisted_has_it(self) -> None:
        """What holds no secret and names its call is the same as before."""
        self.log.info("call {id}: up", id=ID)
        self.log.info("two\nlines")
        self.log.warn("stopping")
        self.assertEqual(self.lines("text"), [formatEventAsClassicLogText(event) for event in self.events])

    def test_failure(self) -> None:
        """A traceback has no secret in it; the call is named in the first line."""
        self.log.failure("it broke", failing(), id=ID)
        (line,) = self.lines("text")
        self.assertIn(f"it broke (call {ID})\n\tTraceback", line)
        self.assertIn("ValueError: http://x/?k=***", line)
        self.assertNotIn(SECRET, line)

    def test_call_is_named(self) -> None:
        """A line whose text does not name its call gets its contextId."""
        self.log.warn("AudioSocket {peer} reports an error", peer="192.0.2.1:1", id=ID)
        self.assertTrue(self.lines("text")[0].endswith(f"AudioSocket 192.0.2.1:1 reports an error (call {ID})\n"))


class ContextIdTests(LinesTestCase):
    """Which call a line is of."""

    def of(self, **fields: Any) -> str:
        """The contextId of an event with these fields."""
        return context_id_of({"log_format": f"{OTHER_ID}", **fields})

    def test_fields(self) -> None:
        """The field says it; else the only contextId in the fields, such as in a channel's id."""
        self.assertEqual(self.of(id=ID), ID)
        self.assertEqual(self.of(context_id=ID), ID)
        self.assertEqual(self.of(id="on channel 17, not registered", channel=f"rapida-{ID}"), ID)
        self.assertEqual(self.of(reason=f"context {ID} is unknown"), ID)
        self.assertEqual(self.of(id=ID, upstream=OTHER_ID), ID)
        self.assertEqual(self.of(one=ID, other=OTHER_ID), "")
        self.assertEqual(self.of(id="", number=1), "")

    def test_all_of_ours(self) -> None:
        """Every line of this program that begins with "call {...}" has the call's id as a field."""
        seen = 0
        for path in Path(rapida_twisted.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                    continue
                text = node.args[0]
                if not isinstance(text, ast.Constant) or not str(text.value).startswith("call {"):
                    continue
                seen += 1
                named = {keyword.arg for keyword in node.keywords}
                self.assertTrue(named & {"id", "context_id"}, f"{path}:{node.lineno}")
        self.assertGreater(seen, 20)


class MaskingObserverTests(LinesTestCase):
    """Another's observer."""

    def test_masked(self) -> None:
        """It gets the text and the traceback without secrets, and no object that could hold one."""
        out = StringIO()
        theirs: list[Any] = []
        observers = [FileLogObserver(out, formatEventAsClassicLogText), theirs.append]
        self.log.failure("call {id}: {why}", failing(), id=ID, why=SECRET, request=object())
        for observer in observers:
            MaskingObserver(observer)(self.events[0])
        self.assertIn(f"call {ID}: ***", out.getvalue())
        self.assertIn("ValueError: http://x/?k=***", out.getvalue())
        self.assertNotIn(SECRET, out.getvalue() + repr(theirs))
        self.assertEqual((theirs[0]["log_level"], theirs[0]["id"]), (LogLevel.critical, ID))

    def test_broken_failure(self) -> None:
        """A traceback that can't be made is no reason to lose the line."""

        class Broken:
            def getTraceback(self) -> str:  # noqa: N802
                raise ZeroDivisionError

        event = {"log_format": "x", "log_failure": Broken(), "log_time": 1.0}
        self.assertIn("ZeroDivisionError", json.loads(json_line(event) or "")["traceback"])
        self.assertIn("x", text_line(event) or "")
