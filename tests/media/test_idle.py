"""Idle calls end; all others go on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import EndReason
from rapida_twisted.media.idle import MAX_AHEAD_S, IdleWatch


class _Call:
    """A call, as far as the watch looks at it."""

    def __init__(self, context_id: str) -> None:
        self.context = SimpleNamespace(context_id=context_id)
        self.audio_in_s = 0.0
        self.ends: list[tuple[EndReason, str]] = []

    def end(self, reason: EndReason, detail: str) -> bool:
        """Whether it had not ended before."""
        self.ends.append((reason, detail))
        return len(self.ends) == 1


class IdleWatchTests(SynchronousTestCase):
    """The watch."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: Any = [_Call("talking"), _Call("silent")]
        self.ended = 0

    def watch(self, idle_s: float) -> IdleWatch:
        """A watch over the calls."""
        return IdleWatch(self.calls, idle_s, self.count, self.clock.seconds)

    def count(self) -> None:
        """A call was ended."""
        self.ended += 1

    def pass_time(self, watch: IdleWatch, seconds: int) -> None:
        """One call is heard each second; the watch looks each 5 s."""
        for second in range(seconds):
            self.clock.advance(1)
            self.calls[0].audio_in_s += 0.02
            if second % 5 == 4:
                watch.check()

    def test_silent(self) -> None:
        """The call that sends nothing is ended when its time is over, and counted once."""
        watch = self.watch(60)
        watch.check()
        self.pass_time(watch, 55)
        self.assertEqual(self.calls[1].ends, [])
        self.pass_time(watch, 15)
        self.assertEqual(self.calls[1].ends[0], (EndReason.PEER_STALLED, "the caller sent no audio for 60 s"))
        self.assertEqual((self.calls[0].ends, self.ended), ([], 1))

    def test_heard_again(self) -> None:
        """A sound begins the time anew."""
        watch = self.watch(60)
        watch.check()
        self.pass_time(watch, 55)
        self.calls[1].audio_in_s += 0.02
        self.pass_time(watch, 55)
        self.assertEqual(self.calls[1].ends, [])
        self.pass_time(watch, 15)
        self.assertGreater(len(self.calls[1].ends), 0)

    def test_never(self) -> None:
        """With 0 no call ends."""
        watch = self.watch(0)
        self.pass_time(watch, 100_000)
        self.assertEqual((self.calls[1].ends, self.ended), ([], 0))

    def test_flood(self) -> None:
        """Audio much faster than real time ends a call; a burst after a stall does not."""
        watch = self.watch(0)
        watch.check()
        self.calls[0].audio_in_s += MAX_AHEAD_S
        self.pass_time(watch, 10)
        self.assertEqual(self.calls[0].ends, [])
        self.calls[0].audio_in_s += 20
        self.pass_time(watch, 5)
        self.assertEqual([reason for reason, _ in self.calls[0].ends], [EndReason.PROTOCOL_ERROR])
        self.assertEqual((self.calls[1].ends, self.ended), ([], 0))

    def test_forgets(self) -> None:
        """Calls that are over are not kept in mind."""
        watch = self.watch(60)
        watch.check()
        self.calls.clear()
        watch.check()
        self.assertEqual(watch._heard, {})
