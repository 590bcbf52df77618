"""The progress of outbound calls on its way to the store."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.outbound.progress_writer import ProgressWriter
from rapida_twisted.context import CallProgress, CallStatus


class SlowStore:
    """Its writes take as long as the test likes."""

    def __init__(self) -> None:
        self.writing: list[Deferred[Any]] = []

    def follow(self, context_id: str, progress: CallProgress, *, notify: bool = False) -> Deferred[Any]:
        """Not yet."""
        self.writing.append(Deferred())
        return self.writing[-1]


class FlushTests(SynchronousTestCase):
    """At shutdown."""

    def setUp(self) -> None:
        self.clock, self.store = Clock(), SlowStore()
        self.writer = ProgressWriter(self.store, notify=False, written=lambda: None, reactor=self.clock)  # type: ignore[arg-type]

    def flush(self) -> Deferred[None]:
        """Begin to."""
        return Deferred.fromCoroutine(self.writer.flush(2.0))

    def test_waits_for_what_is_being_written(self) -> None:
        """It fires when the last change is in the store."""
        for status in (CallStatus.RINGING, CallStatus.ANSWERED):
            self.writer.record("one", CallProgress(status=status, at=1.0))
        flushing = self.flush()
        self.store.writing[0].callback(None)
        self.assertNoResult(flushing)
        self.store.writing[1].callback(None)
        self.successResultOf(flushing)
        self.assertEqual((self.writer.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_a_store_that_never_answers(self) -> None:
        """It waits no longer than the timeout."""
        self.writer.record("one", CallProgress(status=CallStatus.RINGING, at=1.0))
        flushing = self.flush()
        self.clock.advance(2.0)
        self.successResultOf(flushing)
        self.assertEqual(self.writer.waiting, 0)
        self.assertEqual(len(self.flushLoggedErrors(CancelledError)), 1, "the change is lost, and the log says so")
