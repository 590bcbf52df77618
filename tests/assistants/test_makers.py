"""Makers of assistants that have more to do than to make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rapida_twisted.assistants.record import Record, _RecordMaker
from rapida_twisted.assistants.registry import Assistants, parse_rules
from rapida_twisted.context import CallContext
from rapida_twisted.interfaces import AssistantEnvironment, IAssistant, IAssistantMaker
from rapida_twisted.media.assistant import Assistant
from tests.assistants.calls import CONTEXT


@implementer(IAssistantMaker)
class Maker:
    """One that does all that makers may do."""

    def __init__(self, health: Mapping[str, Any] | None = None) -> None:
        self.closed = 0
        self._health = health or {}

    def __call__(self, context: CallContext) -> IAssistant:
        """One call's."""
        return Assistant()

    async def prepare(self, context: CallContext) -> CallContext:
        """Note something."""
        return replace(context, upstream_id="there")

    def health(self) -> Mapping[str, Any]:
        """As it was told."""
        return self._health

    async def close(self) -> None:
        """Count it."""
        self.closed += 1


class MakersTests(SynchronousTestCase):
    """What a server asks of them."""

    def prepared(self, assistants: Assistants, assistant_id: str) -> str:
        """What was noted at a registration."""
        preparing = Deferred.fromCoroutine(assistants.prepare(replace(CONTEXT, assistant_id=assistant_id)))
        return self.successResultOf(preparing).upstream_id

    def test_prepare(self) -> None:
        """The maker of the call's assistant is asked; plain functions have nothing to say, nor has nobody."""
        assistants = Assistants({"1": Maker(), "2": lambda context: Assistant()})
        self.assertEqual([self.prepared(assistants, name) for name in ("1", "2", "3")], ["there", "", ""])
        self.assertEqual(self.prepared(Assistants({"*": Maker()}), "3"), "there")

    def test_health(self) -> None:
        """Those are shown that have something to tell."""
        makers = {"1": Maker({"state": "open"}), "2": Maker(), "3": lambda context: Assistant()}
        self.assertEqual(Assistants(makers).health(), {"1": {"state": "open"}})

    def test_close(self) -> None:
        """Each is closed, with the server."""
        makers = {"1": Maker(), "2": lambda context: Assistant(), "3": Maker()}
        self.successResultOf(Deferred.fromCoroutine(Assistants(makers).close()))
        self.assertEqual([makers[name].closed for name in ("1", "3")], [1, 1])  # type: ignore[attr-defined]

    def test_recorded(self) -> None:
        """A recording passes on what its inner assistant's maker is asked."""
        inner = Maker({"state": "open"})
        maker = _RecordMaker(inner, Path("recordings"))
        verifyObject(IAssistantMaker, maker)
        assistants = Assistants({"*": maker})
        self.assertEqual(self.prepared(assistants, "1"), "there")
        self.assertEqual(assistants.health(), {"*": {"state": "open"}})
        self.successResultOf(Deferred.fromCoroutine(assistants.close()))
        self.assertEqual(inner.closed, 1)
        self.assertIsInstance(assistants.make(CONTEXT), Record)

    def test_plain(self) -> None:
        """What ships and has nothing to prepare, prepares nothing."""
        environment = AssistantEnvironment(Clock(), Path("state"))
        assistants = parse_rules("*=echo,1=record:echo", environment)
        self.assertEqual((self.prepared(assistants, "1"), self.prepared(assistants, "2")), ("", ""))
        self.assertEqual(assistants.health(), {})
