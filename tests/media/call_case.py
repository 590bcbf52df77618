"""One call between a fake channel and a fake assistant, on fake time."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.audio.formats import SLIN, AudioFormat
from rapida_twisted.context import EndReason
from rapida_twisted.interfaces import ICall
from tests.media.fakes import CallOnFakes, FakeAssistant, KeptLog

SLIN16 = AudioFormat("slin", 16000)
SILENCE = SLIN.silent_frame


def level(samples: bytes) -> int:
    """The loudest sample."""
    return max(map(abs, array("h", samples)), default=0)


def void(_: object) -> None:
    """Nothing, whatever comes."""


class CallTestCase(SynchronousTestCase):
    """Calls on fakes; nothing that is logged as an error, and no timer, may be left at the end of a test."""

    def setUp(self) -> None:
        """Keep what is logged."""
        self.logged = KeptLog(self)

    def tearDown(self) -> None:
        """Deferreds with an unhandled error tell of it when they are forgotten."""
        gc.collect()

    def up(self, answer: Callable[[ICall], Awaitable[None]] | None = None, **how: Any) -> CallOnFakes:
        """A call that is up, with an assistant that answers so."""
        self.assistant = FakeAssistant(rate_hz=how.pop("rate_hz", None))
        if answer is not None:
            self.assistant._answer = answer
        return CallOnFakes(self.assistant, **how)

    def assert_over(self, fakes: CallOnFakes, reason: EndReason) -> None:
        """Everyone concerned was notified of the end exactly once, with this reason, and nothing is left behind."""
        fakes.turn()
        fakes.turn()
        self.assertIs(fakes.call.ended, reason)
        if isinstance(fakes.call._assistant, FakeAssistant):
            self.assertEqual(fakes.call._assistant.ended, [reason])
        self.assertEqual(fakes.over, [fakes.call])
        self.assertEqual(fakes.channel.sent_after_hangup, 0)
        sent = len(fakes.channel.sent)
        fakes.tick(3)
        self.assertEqual(len(fakes.channel.sent), sent)
        self.assertEqual(fakes.over, [fakes.call])
        self.assertEqual(fakes.reactor.getDelayedCalls(), [])

    def assert_failed(self, fakes: CallOnFakes, error: type[Exception]) -> None:
        """The call ended since its assistant failed; that was logged once, with the contextId."""
        self.assert_over(fakes, EndReason.ASSISTANT_FAILED)
        self.assertEqual(fakes.channel.hangups, 1)
        self.assertIn(error.__name__, fakes.call.end_detail)
        self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.assertEqual([event["id"] for event in self.logged.failures], [fakes.call.context.context_id])
