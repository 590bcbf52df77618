"""What is counted: the program calls these methods, whether or not Prometheus' library is installed.

No method is called for each frame. Calls count their frames; the sampler reports them every few seconds and at a call's
end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import sub
from typing import NamedTuple, Protocol

from rapida_twisted.context import CallContext, EndReason

__all__ = ["CallFigures", "CallWatch", "Instant", "Metrics", "MetricsPageMaker", "WatchedCall"]

OTHERS = "*"


class CallFigures(NamedTuple):
    """What one call has counted so far. A frame is 20 ms, whatever the packets are."""

    frames_in: float = 0.0
    """Received from the caller."""
    frames_out: int = 0
    """Sent to the caller."""
    silent_frames: int = 0
    """Silence sent to keep the connection alive."""
    underruns: int = 0
    """Frames completed with silence because the assistant's audio came too late."""
    dropped_s: float = 0.0
    """Live audio dropped because it was too old (s)."""

    def since(self, before: CallFigures) -> CallFigures:
        """The difference to earlier figures."""
        return CallFigures(max(0.0, self.frames_in - before.frames_in), *map(sub, self[1:], before[1:]))


class WatchedCall(Protocol):
    """A call, as the metrics see it."""

    context: CallContext

    @property
    def figures(self) -> CallFigures:
        """What it has counted so far."""

    @property
    def queued_ms(self) -> float:
        """Audio that waits to be played (ms)."""


class CallWatch:
    """Receives the reception's events; this base class ignores them."""

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
    """The state of this process, sampled every second."""

    draining: bool = False
    calls_coming: int = 0
    ends_unwritten: int = 0
    audiosocket_waiting: int = 0
    tick_load: float = 0.0
    """Share of its time that the media clock is busy, 0 to 1."""
    lateness_p99_s: float = 0.0
    lateness_max_s: float = 0.0
    breakers: Mapping[str, str] = field(default_factory=dict)
    """The state of each upstream's circuit breaker, by the assistants' rule."""


class Metrics:
    """The base class, which counts nothing: for a server without Prometheus' library.

    Labels have few values: a dialled id is replaced by the rule that answers it, see :meth:`rule_of`.
    """

    def __init__(self) -> None:
        self._rules: frozenset[str] = frozenset()

    def set_rules(self, assistant_ids: Iterable[str]) -> None:
        """Set the ids that the assistants' rules name: no other id becomes a label."""
        self._rules = frozenset(assistant_ids)

    def rule_of(self, assistant_id: str) -> str:
        """The rule that answers an id: the id itself, if a rule names it, else ``*``."""
        return assistant_id if assistant_id in self._rules else OTHERS

    # Calls

    def call_refused(self, transport: str, why: str) -> None:
        """A media connection was refused."""

    def call_up(self, context: CallContext, setup_s: float) -> None:
        """A call's media is up, so long after its registration."""

    def call_over(self, context: CallContext, reason: EndReason, seconds: float) -> None:
        """A call that was up is over."""

    def call_abandoned(self, transport: str, reason: EndReason) -> None:
        """A call was over before it was up."""

    def flushed(self, transport: str, took_s: float, cut_s: float) -> None:
        """Barge-in: what waited to be heard was dropped, and how long that took."""

    def frames(self, transport: str, more: CallFigures) -> None:
        """Add what a call has counted since the last report."""

    def queued(self, all_s: float, most_s: float) -> None:
        """Set the audio (s) that waits to be played: of all calls together, and of the call with the most."""

    def frames_missing(self, transport: str, count: int) -> None:
        """Add frames that a caller should have sent and did not."""

    # The clock

    def frames_late(self, over: str, count: int) -> None:
        """Add frames that left at least ``over`` after they were due."""

    def frames_skipped(self, count: int) -> None:
        """Add frames that were never sent because the process was stopped."""

    def blocked(self, assistant_id: str, seconds: float) -> None:
        """Add the time (s) in which an assistant blocked the reactor; an empty id: something else did."""

    # Others

    def contexts(self, outcome: str, count: int = 1) -> None:
        """Add calls that were ``registered``, or ``expired`` without media."""

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        """An operation of the call store was ``ok``, ``refused``, ``unavailable`` or ``failed``."""

    def ari(self, credential: str, outcome: str) -> None:
        """A request to an Asterisk: the class of the status, such as ``2xx``, or why there was no answer."""

    def upstream(self, assistant_id: str, step: str, outcome: str) -> None:
        """A bridged call's server was asked to ``register`` or ``connect`` it."""

    def webhook(self, outcome: str) -> None:
        """A request to the status webhook."""

    def refused(self, what: str, count: int) -> None:
        """Add refusals by a limit."""

    def instant(self, now: Instant) -> None:
        """Set the state of this process."""

    def process(self) -> None:
        """Sample the process: memory, CPU time, files."""


class MetricsPageMaker(Metrics):
    """Metrics that can be read."""

    content_type = "text/plain"

    async def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        raise NotImplementedError
