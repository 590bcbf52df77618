"""Copies figures from where they are counted to the metrics, every second.

Calls are sampled every 5 s, in slices of 100 with a reactor turn between, and at their end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import CooperativeTask, Cooperator, LoopingCall, TaskStopped
from twisted.logger import Logger
from twisted.python.failure import Failure

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.errors import ContextError, Draining, StoreUnavailable, TooManyCalls
from rapida_twisted.observe.interface import CallFigures, CallWatch, Instant, Metrics, WatchedCall

__all__ = ["SampledClock", "Sampler"]

EVERY_S = 1.0
CALLS_EVERY = 5
"""Calls, process and lateness are sampled every N turns."""
CALLS_A_SLICE = 100
LATE_S = (0.005, 0.020, 0.100)
WINDOW = 3
"""Lateness is that of the last N samples: 10 to 15 s."""
FRAME_S = 0.02
ENDS_OF_CALL = 10
"""Missing frames that are ignored at the ends of a call, while its connection comes up and goes."""


class SampledClock(Protocol):
    """The media clock, as the metrics see it."""

    lateness: Any
    forgiven: int


@attrs.define(eq=False, slots=False, repr=False)
class Sampler(CallWatch):
    """Samples the clock, the calls and the process for the metrics."""

    _log = Logger()

    _metrics: Metrics
    _clock: SampledClock = attrs.field(kw_only=True)
    _calls: Callable[[], Iterable[WatchedCall]] = attrs.field(kw_only=True)
    """The calls that are up."""
    _look: Callable[[], Instant] = attrs.field(kw_only=True)
    """The state of the process, without the clock's figures."""
    _refused: Callable[[], Mapping[str, int]] = attrs.field(default=dict, kw_only=True)
    """Refusals so far, by limit."""
    _reactor: Any = attrs.field(kw_only=True)
    """Provides IReactorTime."""
    _now: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True)
    """A monotonic time (s)."""

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._turn)
        self._loop.clock = self._reactor
        self._cooperator = Cooperator(
            terminationPredicateFactory=lambda: lambda: True, scheduler=lambda again: self._reactor.callLater(0, again)
        )
        self._looking: CooperativeTask[Generator[None, None, None]] | None = None
        self._turns = 0
        self._told: dict[WatchedCall, CallFigures] = {}
        self._up_at_s: dict[WatchedCall, float] = {}
        self._refused_before: dict[str, int] = {}
        self._late_before = [0] * len(LATE_S)
        self._forgiven_before = 0
        self._counts: list[list[int]] = []
        self._busy_before_s = 0.0
        self._turn_before_s = self._now()
        self._p99_s = self._max_s = 0.0

    def start(self) -> None:
        """Start sampling. Called once."""
        self._loop.start(EVERY_S, now=True).addErrback(self._broke)

    def stop(self) -> None:
        """Sample a last time, and stop."""
        if self._loop.running:
            self._loop.stop()
            self._tell_late()
            self._tell_refused()
        if self._looking is not None:
            try:
                self._looking.stop()
            except TaskStopped:
                pass
        self._cooperator.stop()

    def _broke(self, failure: Failure) -> None:
        self._log.failure("the figures of /metrics are no longer updated", failure)

    # Calls

    def call_refused(self, transport: str, error: Exception) -> None:
        self._metrics.call_refused(transport, _word(error))

    def call_abandoned(self, context: CallContext, reason: EndReason) -> None:
        self._metrics.call_abandoned(context.transport, reason)

    def call_flushed(self, call: WatchedCall, took_s: float, cut_s: float) -> None:
        self._metrics.flushed(call.context.transport, took_s, cut_s)

    def call_up(self, call: WatchedCall, setup_s: float) -> None:
        self._told[call] = CallFigures()
        self._up_at_s[call] = self._now()
        self._metrics.call_up(call.context, setup_s)

    def call_over(self, call: WatchedCall, reason: EndReason) -> None:
        if call not in self._told:
            return
        figures = call.figures
        seconds = self._now() - self._up_at_s.pop(call)
        self._tell(call, figures)
        del self._told[call]
        missing = int(seconds / FRAME_S - figures.frames_in) - ENDS_OF_CALL
        if missing > 0:
            self._metrics.frames_missing(call.context.transport, missing)
        self._metrics.call_over(call.context, reason, seconds)

    def _tell(self, call: WatchedCall, figures: CallFigures) -> None:
        before = self._told[call]
        self._told[call] = figures
        self._metrics.frames(call.context.transport, figures.since(before))

    def _all_calls(self) -> Generator[None, None, None]:
        calls = iter(list(self._calls()))
        all_ms = most_ms = 0.0
        while some := list(islice(calls, CALLS_A_SLICE)):
            for call in some:
                # It may have ended between two slices.
                if call in self._told:
                    self._tell(call, call.figures)
                    queued_ms = call.queued_ms
                    all_ms, most_ms = all_ms + queued_ms, max(most_ms, queued_ms)
            yield
        self._metrics.queued(all_ms / 1000, most_ms / 1000)

    # Every second

    def _turn(self) -> None:
        if self._turns % CALLS_EVERY == 0:
            self._tell_lateness()
            self._metrics.process()
            self._look_at_calls()
        self._turns += 1
        self._tell_late()
        self._tell_refused()
        now = self._look()
        now.tick_load, now.lateness_p99_s, now.lateness_max_s = self._load(), self._p99_s, self._max_s
        self._metrics.instant(now)

    def _look_at_calls(self) -> None:
        if self._looking is not None:
            # An overloaded process has not finished the previous sample.
            return
        self._looking = self._cooperator.cooperate(self._all_calls())
        looked: Deferred[Any] = self._looking.whenDone()
        looked.addErrback(_ignore_stopped).addErrback(self._broke).addCallback(self._looked)

    def _looked(self, _: Any) -> None:
        self._looking = None

    def _load(self) -> float:
        """Share of the time since the last turn that the clock was busy."""
        now_s, busy_s = self._now(), float(getattr(self._clock, "busy_s", 0.0))
        passed_s, busy_for_s = now_s - self._turn_before_s, busy_s - self._busy_before_s
        self._turn_before_s, self._busy_before_s = now_s, busy_s
        # The clock's figures may have been reset.
        return min(1.0, max(0.0, busy_for_s) / passed_s) if passed_s > 0 else 0.0

    def _tell_late(self) -> None:
        counts, step_s = self._clock.lateness.counts, self._clock.lateness.STEP_S
        for number, over_s in enumerate(LATE_S):
            count = sum(counts[round(over_s / step_s) :])
            self._metrics.frames_late(f"{over_s * 1000:g}ms", _more(count, self._late_before[number]))
            self._late_before[number] = count
        self._metrics.frames_skipped(_more(self._clock.forgiven, self._forgiven_before))
        self._forgiven_before = self._clock.forgiven

    def _tell_lateness(self) -> None:
        """Lateness of the last 10 to 15 s: the difference of two samples of the totals."""
        lateness = self._clock.lateness
        counts = list(lateness.counts)
        if self._counts and sum(counts) < sum(self._counts[-1]):
            self._counts.clear()
        before = self._counts[0] if self._counts else [0] * len(counts)
        recent = [new - old for new, old in zip(counts, before, strict=True)]
        self._p99_s = lateness.percentile_ms(0.99, recent) / 1000
        self._max_s = lateness.percentile_ms(1.0, recent) / 1000
        self._counts = [*self._counts, counts][-WINDOW:]

    def _tell_refused(self) -> None:
        for name, count in self._refused().items():
            self._metrics.refused(name, _more(count, self._refused_before.get(name, 0)))
            self._refused_before[name] = count


def _ignore_stopped(failure: Failure) -> None:
    failure.trap(TaskStopped)


def _more(count: int, before: int) -> int:
    """The growth of a count that may have been reset."""
    return count - before if count >= before else count


def _word(error: Exception) -> str:
    match error:
        case ContextError():
            return error.word.replace(" ", "_")
        case TooManyCalls():
            return "too_many_calls"
        case Draining():
            return "draining"
        case StoreUnavailable():
            return "store_unavailable"
    return "other"
