"""What is counted, and by whom: the house tells these methods what happens, and need not know what becomes of it.

Nothing here is told for each frame. Frames are counted where they are, and what came of it is told at a call's end and
every few seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from rapida_twisted.context import CallContext, EndReason

__all__ = ["CallFigures", "CallWatch", "Instant", "Metrics", "MetricsPageMaker", "WatchedCall"]

OTHERS = "*"


class CallFigures(NamedTuple):
    """What one call has counted since it is up. Frames are of 20 ms, whatever the packets are."""

    frames_in: float = 0.0
    """Heard from the caller."""
    frames_out: int = 0
    """Said to the caller."""
    silent_frames: int = 0
    """Silence that was sent to keep the line alive."""
    underruns: int = 0
    """Frames that had to be filled up, since what is said was not ready."""
    dropped_s: float = 0.0
    """Live audio that was too old when its turn came (s)."""

    def since(self, before: CallFigures) -> CallFigures:
        """What came to these figures since then."""
        return CallFigures(
            frames_in=max(0.0, self.frames_in - before.frames_in),
            frames_out=self.frames_out - before.frames_out,
            silent_frames=self.silent_frames - before.silent_frames,
            underruns=self.underruns - before.underruns,
            dropped_s=self.dropped_s - before.dropped_s,
        )


class WatchedCall(Protocol):
    """A call, as far as it is watched."""

    context: CallContext

    @property
    def figures(self) -> CallFigures:
        """What it has counted."""

    @property
    def queued_ms(self) -> float:
        """What waits to be heard."""


class CallWatch:
    """Who is told of calls by the reception; this one does nothing with it."""

    def call_refused(self, transport: str, error: Exception) -> None:
        """A media connection was not let in."""

    def call_up(self, call: WatchedCall, setup_s: float) -> None:
        """A call's media is up, so long after its registration."""

    def call_flushed(self, call: WatchedCall, took_s: float, cut_s: float) -> None:
        """What waited to be heard was dropped."""

    def call_over(self, call: WatchedCall, reason: EndReason) -> None:
        """A call is over; nothing happens if it was not up."""

    def call_abandoned(self, context: CallContext, reason: EndReason) -> None:
        """A call was over before it was up."""


@dataclass
class Instant:
    """What is true of this process just now: it is told every second."""

    draining: bool = False
    calls_coming: int = 0
    ends_unwritten: int = 0
    audiosocket_waiting: int = 0
    tick_load: float = 0.0
    """Share of the time that the media clock needs, 0 to 1."""
    lateness_p99_s: float = 0.0
    lateness_max_s: float = 0.0
    breakers: Mapping[str, str] = field(default_factory=dict)
    """The state of each upstream's breaker, by the rule of the assistants that it belongs to."""


class Metrics:
    """Counts nothing: what is there without Prometheus' library, and what others derive from.

    Transports, reasons and outcomes are words of which there are few. Ids that were dialled are put under the rule
    that answers them, by :meth:`rule_of`.
    """

    def __init__(self) -> None:
        self._rules: frozenset[str] = frozenset()

    def set_rules(self, assistant_ids: Iterable[str]) -> None:
        """The ids that the assistants' rules name: no others are ever shown."""
        self._rules = frozenset(assistant_ids)

    def rule_of(self, assistant_id: str) -> str:
        """The rule that answers an id: the id itself, if a rule names it, else ``*``."""
        return assistant_id if assistant_id in self._rules else OTHERS

    # Calls

    def call_refused(self, transport: str, why: str) -> None:
        """A media connection was not let in; ``why`` in a word."""

    def call_up(self, context: CallContext, setup_s: float) -> None:
        """A call's media is up, so long after its registration."""

    def call_over(self, context: CallContext, reason: EndReason, seconds: float) -> None:
        """A call that was up is over."""

    def call_abandoned(self, transport: str, reason: EndReason) -> None:
        """A call was over before it was up."""

    def flushed(self, transport: str, took_s: float, cut_s: float) -> None:
        """Barge-in: what waited to be heard was dropped, and how long that took."""

    def frames(self, transport: str, more: CallFigures) -> None:
        """What a call has counted since it was last told."""

    def queued(self, all_s: float, most_s: float) -> None:
        """What waits to be heard: in all calls together, and in the one with the most (s)."""

    def frames_missing(self, transport: str, count: int) -> None:
        """So many frames of a call's caller never came."""

    # The clock

    def frames_late(self, over: str, count: int) -> None:
        """So many more frames left later than ``over`` after they were due."""

    def frames_skipped(self, count: int) -> None:
        """So many frames were never sent, because the process was held up."""

    # Others

    def contexts(self, outcome: str, count: int = 1) -> None:
        """Calls were ``registered``, or ``expired`` without media."""

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        """The call store was asked for something: ``ok``, ``refused``, ``unavailable`` or ``failed``."""

    def ari(self, credential: str, outcome: str) -> None:
        """An Asterisk was asked for something: a status as ``2xx``, or why there was none."""

    def upstream(self, assistant_id: str, step: str, outcome: str) -> None:
        """A server that calls are carried on to was asked to ``register`` or ``connect`` one."""

    def webhook(self, outcome: str) -> None:
        """The status webhook was asked."""

    def refused(self, what: str, count: int) -> None:
        """So many more times was something refused to strangers, by the names of the limits."""

    def instant(self, now: Instant) -> None:
        """What is true just now."""

    def process(self) -> None:
        """Look at the process: its memory, its CPU time, its files."""


class MetricsPageMaker(Metrics):
    """One that can be read."""

    content_type = "text/plain"

    async def page(self) -> bytes:
        """All figures, as Prometheus wants them."""
        raise NotImplementedError
