"""From where things are counted to the metrics, on fake time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import EndReason
from rapida_twisted.errors import Draining, StoreUnavailable, TooManyCalls, UnknownContext
from rapida_twisted.media.clock import Lateness
from rapida_twisted.observe.interface import CallFigures, Instant, Metrics
from rapida_twisted.observe.sampler import ENDS_OF_CALL, Sampler
from tests.media.fakes import CallOnFakes, FakeAssistant, counted, make_context
from tests.observe.turns import TurningClock


class KeptMetrics(Metrics):
    """Keeps what it is told, by the method's name."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Any, ...]] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name in ("told", "of", "set_rules", "rule_of"):
            return super().__getattribute__(name)
        return lambda *words: self.told.append((name, *words))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """What one method was told."""
        return [words[1:] for words in self.told if words[0] == name]


class FakeClock:
    """What the media clock shows."""

    def __init__(self) -> None:
        self.lateness = Lateness()
        self.forgiven = 0
        self.busy_s = 0.0


class FakeCall:
    """A call with whatever figures the test wants."""

    def __init__(self) -> None:
        self.context = make_context()
        self.figures = CallFigures()
        self.queued_ms = 0.0


class WatchTestCase(SynchronousTestCase):
    """A watch over no calls."""

    def setUp(self) -> None:
        self.reactor = TurningClock()
        self.metrics = KeptMetrics()
        self.clock = FakeClock()
        self.calls: list[Any] = []
        self.refused: dict[str, int] = {}
        self.watch = Sampler(
            self.metrics,
            clock=self.clock,
            calls=lambda: self.calls,
            look=Instant,
            refused=lambda: self.refused,
            reactor=self.reactor,
            now=self.reactor.seconds,
        )

    def up(self, call: Any = None) -> Any:
        """A call that is up."""
        call = FakeCall() if call is None else call
        self.calls.append(call)
        self.watch.call_up(call, 0.25)
        return call

    def pass_s(self, seconds: int) -> None:
        """Let time go by, with turns of the reactor in each second."""
        for _ in range(seconds):
            self.reactor.advance(1)
            for _ in range(5):
                self.reactor.turn()


class CallTests(WatchTestCase):
    """What calls have counted."""

    def total(self) -> CallFigures:
        """All that was told of frames, added."""
        told = [more for _, more in self.metrics.of("frames")]
        return CallFigures(*(sum(values) for values in zip(*told, strict=True)))  # type: ignore[arg-type]

    def test_a_long_call_is_told_meanwhile(self) -> None:
        """Each five seconds what was added is told, and at the end the rest: nothing twice, nothing never."""
        self.watch.start()
        call = self.up()
        for _ in range(3):
            call.figures = CallFigures(*(value + 250 for value in call.figures))
            self.pass_s(5)
        told = len(self.metrics.of("frames"))
        self.assertGreaterEqual(told, 3)
        self.assertEqual(self.total(), CallFigures(750, 750, 750, 750, 750))
        call.figures = CallFigures(790, 791, 792, 793, 794.5)
        self.watch.call_over(call, EndReason.CALLER_HANGUP)
        self.calls.remove(call)
        self.pass_s(10)
        self.assertEqual(self.total(), CallFigures(790, 791, 792, 793, 794.5))
        self.assertEqual(len(self.metrics.of("frames")), told + 1)

    def test_ended_between_slices(self) -> None:
        """Calls are looked at in slices; one that ends while the look is under way is told once."""
        calls = [self.up() for _ in range(250)]
        for call in calls:
            call.figures = CallFigures(frames_in=1)
        self.watch.start()
        self.reactor.turn()
        seen = len(self.metrics.of("frames"))
        self.assertTrue(0 < seen <= 100, seen)
        self.watch.call_over(calls[-1], EndReason.CALLER_HANGUP)
        self.pass_s(2)
        self.assertEqual(self.total().frames_in, 250)
        self.assertEqual(len(self.metrics.of("frames")), 250)

    def test_missing(self) -> None:
        """What the caller's line should have brought in the call's time, and did not, is missing; not its ends."""
        call = self.up()
        self.reactor.advance(20)
        call.figures = CallFigures(frames_in=900)
        self.watch.call_over(call, EndReason.CALLER_HANGUP)
        self.assertEqual(self.metrics.of("frames_missing"), [("", 100 - ENDS_OF_CALL)])
        complete = self.up()
        self.reactor.advance(20)
        complete.figures = CallFigures(frames_in=1000 - ENDS_OF_CALL)
        self.watch.call_over(complete, EndReason.CALLER_HANGUP)
        self.assertEqual(len(self.metrics.of("frames_missing")), 1)

    def test_up_and_over(self) -> None:
        """Each call is told once at each end; one that was never up is not over."""
        call = self.up()
        self.assertEqual(self.metrics.of("call_up"), [(call.context, 0.25)])
        self.reactor.advance(7)
        for _ in range(2):
            self.watch.call_over(call, EndReason.OPERATOR_HANGUP)
        self.watch.call_over(FakeCall(), EndReason.OPERATOR_HANGUP)
        self.assertEqual(self.metrics.of("call_over"), [(call.context, EndReason.OPERATOR_HANGUP, 7.0)])

    def test_queued(self) -> None:
        """What waits to be heard: in all calls, and in the one with the most."""
        for queued_ms in (100.0, 250.0):
            self.up().queued_ms = queued_ms
        self.watch.start()
        self.pass_s(1)
        self.assertEqual(self.metrics.of("queued"), [(0.35, 0.25)])

    def test_a_real_call(self) -> None:
        """A call's figures are those of its outlet and its playout."""
        fakes = CallOnFakes(FakeAssistant())
        self.up(fakes.call)
        fakes.call.audio_received(counted(3))
        fakes.call.audio_received(counted(1)[:160])
        fakes.call.play(counted(2))
        fakes.tick(5)
        fakes.call.write(counted(12))
        self.watch.call_over(fakes.call, EndReason.CALLER_HANGUP)
        figures = self.total()
        self.assertEqual((figures.frames_in, figures.frames_out, figures.silent_frames), (3.5, 2, 3))
        self.assertApproximates(figures.dropped_s, 0.04, 1e-9)

    def test_words(self) -> None:
        """Why a connection was not let in is one of a few words, without ids."""
        errors = [UnknownContext("x"), TooManyCalls("1000"), Draining(), StoreUnavailable("disk"), ValueError("x")]
        for error in errors:
            self.watch.call_refused("websocket", error)
        told = [word for _, word in self.metrics.of("call_refused")]
        self.assertEqual(told, ["unknown", "too_many_calls", "draining", "store_unavailable", "other"])

    def test_flush(self) -> None:
        """A real call's flush tells how long it took, and what it dropped."""
        told: list[tuple[float, float]] = []
        fakes = CallOnFakes(FakeAssistant())
        fakes.call._flushed = lambda call, took_s, cut_s: told.append((took_s, cut_s))
        fakes.call.write(counted(5))
        self.assertEqual(fakes.call.flush(), 100.0)
        ((took_s, cut_s),) = told
        self.assertEqual(cut_s, 0.1)
        self.assertTrue(0 < took_s < 0.1, took_s)


class ClockTests(WatchTestCase):
    """What the clock has counted."""

    def late(self) -> dict[str, int]:
        """How many frames were told to be late, by how much."""
        told: dict[str, int] = {}
        for over, count in self.metrics.of("frames_late"):
            told[over] = told.get(over, 0) + count
        return told

    def test_late(self) -> None:
        """A frame counts for each limit that it exceeds, once."""
        self.watch.start()
        for late_s in (0.001, 0.004, 0.006, 0.021, 0.15, 3.0):
            self.clock.lateness.add(late_s)
        self.pass_s(3)
        self.assertEqual(self.late(), {"5ms": 4, "20ms": 3, "100ms": 2})

    def test_counted_anew(self) -> None:
        """Somebody may have the clock begin anew: no count goes backwards."""
        self.watch.start()
        for _ in range(5):
            self.clock.lateness.add(0.03)
        self.clock.forgiven, self.clock.busy_s = 9, 0.5
        self.pass_s(6)
        self.clock.lateness.reset()
        self.clock.forgiven, self.clock.busy_s = 2, 0.0
        self.clock.lateness.add(0.03)
        self.pass_s(6)
        self.assertEqual(self.late()["20ms"], 6)
        self.assertEqual(sum(count for (count,) in self.metrics.of("frames_skipped")), 11)
        self.assertTrue(all(now.tick_load >= 0 for (now,) in self.metrics.of("instant")))

    def test_load(self) -> None:
        """The clock's share of the time, since the last second."""
        self.watch.start()
        self.clock.busy_s += 0.25
        self.pass_s(1)
        self.assertEqual(self.metrics.of("instant")[-1][0].tick_load, 0.25)
        self.pass_s(1)
        self.assertEqual(self.metrics.of("instant")[-1][0].tick_load, 0.0)

    def test_lateness_of_late(self) -> None:
        """The lateness is that of the last seconds: what was long ago is forgotten."""
        self.watch.start()
        for _ in range(1000):
            self.clock.lateness.add(0.0002)
        self.clock.lateness.add(0.0118)
        self.pass_s(5)
        now = self.metrics.of("instant")[-1][0]
        self.assertEqual((now.lateness_p99_s, now.lateness_max_s), (0.0005, 0.0118))
        for _ in range(5):
            self.clock.lateness.add(0.0002)
            self.pass_s(5)
        self.assertEqual(self.metrics.of("instant")[-1][0].lateness_max_s, 0.0005)


class RestTests(WatchTestCase):
    """Limits, and the end."""

    def test_refused(self) -> None:
        """What limits count is told as it grows, by their names."""
        self.watch.start()
        self.refused["http.overdue"] = 2
        self.pass_s(1)
        self.refused["http.overdue"] = 5
        self.pass_s(2)
        self.assertEqual([words for words in self.metrics.of("refused") if words[1]], [
            ("http.overdue", 2), ("http.overdue", 3),
        ])  # fmt: skip

    def test_stop(self) -> None:
        """Nothing is left behind in the reactor, and what is new is told a last time."""
        for _ in range(250):
            self.up()
        self.watch.start()
        self.reactor.turn()
        self.clock.forgiven = 3
        self.watch.stop()
        self.reactor.turn()
        self.assertEqual(self.metrics.of("frames_skipped")[-1], (3,))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
