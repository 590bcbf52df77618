"""Names and types of the metrics, kept by Prometheus' client library (the extra ``metrics``).

If ``PROMETHEUS_MULTIPROC_DIR`` is set when this module is imported, the figures are in files there, and each process of
the machine serves the figures of all. The library cannot share collectors, so gauges are set every second and not at a
scrape.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from rapida_twisted import __version__
from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.observe.interface import CallFigures, Instant, MetricsPageMaker

__all__ = ["PrometheusMetrics"]

SETUP_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CALL_S = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
FLUSH_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05)
CUT_S = (0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STORE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
STORE_OUTCOMES = ("ok", "refused", "unavailable", "failed")
BREAKER_STATES = ("closed", "half-open", "open")
SLICE_S = 0.001
"""How long (s) making the page may keep the reactor from the calls."""
SAMPLES_A_PART = 100
KEEP_PAGE_S = 1.0


class PrometheusMetrics(MetricsPageMaker):
    """All figures of this process, or of all processes that share a directory.

    :param reactor: provides IReactorTime.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        disable_created_metrics()
        self._reactor = reactor
        self._shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
        self._own = CollectorRegistry()
        self._waiting_for_page: list[Deferred[bytes]] = []
        self._page = b""
        self._page_made_s = -KEEP_PAGE_S
        self._make_call_figures()
        self._make_frame_figures()
        self._make_service_figures()
        self._make_process_figures()
        self._begin_at_zero()

    # Every name begins with ``rapida_``, and a counter's ends with ``_total``.

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"rapida_{name}_total", text, labels, registry=self._own)

    def _gauge(self, name: str, text: str, *labels: str, mode: Any = "livesum") -> Gauge:
        return Gauge(f"rapida_{name}", text, labels, registry=self._own, multiprocess_mode=mode)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"rapida_{name}", text, labels, registry=self._own, buckets=buckets)

    def _make_call_figures(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self._calls = gauge("calls", "Calls that are up.", "transport", "assistant")
        self._up = counter("calls_started", "Calls that came up.", "transport", "assistant")
        self._over = counter("calls_ended", "Calls that were up and are over.", "transport", "assistant", "reason")
        self._abandoned = counter("calls_abandoned", "Calls that ended before they were up.", "transport", "reason")
        self._refused_media = counter("media_refused", "Refused media connections.", "transport", "reason")
        self._contexts = counter("contexts", "Registered calls, and calls that expired without media.", "outcome")
        self._setup_s = histogram(
            "call_setup_seconds", "From a call's registration to its media.", SETUP_S, "transport", "direction"
        )
        self._call_s = histogram("call_duration_seconds", "Duration of calls.", CALL_S, "transport")
        self._coming = gauge("calls_coming", "Calls whose media connected and that are not up yet.")
        self._unwritten = gauge("ends_unwritten", "Ends of calls neither in the store nor in the spool.")
        self._silent = gauge("audiosocket_waiting", "AudioSocket connections that have not sent their UUID.")
        self._draining = gauge("draining", "Processes that drain before they stop.")
        info = gauge("build_info", "Always 1; the version is in the label.", "version", mode="livemax")
        info.labels(__version__).set(1)

    def _make_frame_figures(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self._frames_in = counter("frames_received", "20 ms frames received from callers.", "transport")
        self._frames_out = counter("frames_sent", "20 ms frames sent to callers.", "transport")
        self._silence = counter("frames_silence", "20 ms frames of silence, sent as keep-alive.", "transport")
        self._missing = counter("frames_missing", "20 ms frames missing from callers' audio.", "transport")
        self._underruns = counter(
            "frames_underrun", "Frames completed with silence because the assistant's audio came too late.", "transport"
        )
        self._late = counter("frames_late", "Frames that left at least this long after they were due.", "over")
        self._skipped = counter("frames_skipped", "Frames never sent because the process was stopped.")
        self._dropped_s = counter("audio_dropped_seconds", "Live audio dropped because it was too old.", "transport")
        self._queued_s = gauge("playout_queued_seconds", "Audio that waits to be played in all calls.")
        self._queued_most_s = gauge(
            "playout_queued_most_seconds", "Audio that waits in the call with the most.", mode="livemax"
        )
        self._flush_s = histogram(
            "barge_in_seconds", "From a flush until no flushed audio can leave.", FLUSH_S, "transport"
        )
        self._cut_s = histogram("barge_in_cut_seconds", "Audio that a flush dropped.", CUT_S, "transport")
        self._load = gauge("tick_load_ratio", "Share of time that the media clock is busy.", mode="livemax")
        self._p99_s = gauge(
            "tick_lateness_p99_seconds", "99th percentile of frame lateness, last 15 s.", mode="livemax"
        )
        self._max_s = gauge("tick_lateness_max_seconds", "Maximum frame lateness, last 15 s.", mode="livemax")

        self._blocked_s = counter(
            "reactor_blocked_seconds",
            "Time in which no call was served because an assistant's code blocked the reactor.",
            "assistant",
        )

    def _make_service_figures(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self._stored = counter("store_operations", "Operations of the call store.", "operation", "outcome")
        self._operations: set[str] = set()
        self._stored_s = histogram(
            "store_operation_seconds", "Duration of the call store's operations.", STORE_S, "operation"
        )
        self._ari = counter("ari_requests", "Requests to Asterisks.", "credential", "outcome")
        self._upstream = counter("upstream_requests", "Requests to upstream servers.", "assistant", "step", "outcome")
        self._breaker = gauge(
            "upstream_breaker", "Processes whose circuit breaker is in this state.", "assistant", "state"
        )
        self._webhook = counter("webhook_requests", "Requests to the status webhook.", "outcome")
        self._limits = counter("limit_refusals", "Refusals by limits.", "limit")

    def _make_process_figures(self) -> None:
        # Names, texts and figures are those of the library's own collector, which can't be shared.
        self._process = ProcessFigures(registry=None)
        self._process_gauges: dict[str, Gauge] = {}
        self._cpu: Counter | None = None
        self._cpu_s = 0.0
        self.process()

    def _begin_at_zero(self) -> None:
        """Create the series before anything is counted: Prometheus sees no growth in a series that was not there."""
        for transport in ("audiosocket", "websocket"):
            self.frames(transport, CallFigures())
            self.frames_missing(transport, 0)
            self._flush_s.labels(transport)
            self._cut_s.labels(transport)

    # Calls

    def call_refused(self, transport: str, why: str) -> None:
        self._refused_media.labels(transport, why).inc()

    def call_up(self, context: CallContext, setup_s: float) -> None:
        rule = self.rule_of(context.assistant_id)
        self._calls.labels(context.transport, rule).inc()
        self._up.labels(context.transport, rule).inc()
        self._setup_s.labels(context.transport, context.direction.value).observe(max(0.0, setup_s))

    def call_over(self, context: CallContext, reason: EndReason, seconds: float) -> None:
        rule = self.rule_of(context.assistant_id)
        self._calls.labels(context.transport, rule).dec()
        self._over.labels(context.transport, rule, reason.value).inc()
        self._call_s.labels(context.transport).observe(max(0.0, seconds))

    def call_abandoned(self, transport: str, reason: EndReason) -> None:
        self._abandoned.labels(transport, reason.value).inc()

    def flushed(self, transport: str, took_s: float, cut_s: float) -> None:
        self._flush_s.labels(transport).observe(took_s)
        self._cut_s.labels(transport).observe(cut_s)

    def frames(self, transport: str, more: CallFigures) -> None:
        self._frames_in.labels(transport).inc(more.frames_in)
        self._frames_out.labels(transport).inc(more.frames_out)
        self._silence.labels(transport).inc(more.silent_frames)
        self._underruns.labels(transport).inc(more.underruns)
        self._dropped_s.labels(transport).inc(more.dropped_s)

    def frames_missing(self, transport: str, count: int) -> None:
        self._missing.labels(transport).inc(count)

    # The clock

    def frames_late(self, over: str, count: int) -> None:
        self._late.labels(over).inc(count)

    def frames_skipped(self, count: int) -> None:
        self._skipped.inc(count)

    def blocked(self, assistant_id: str, seconds: float) -> None:
        self._blocked_s.labels(self.rule_of(assistant_id) if assistant_id else "").inc(seconds)

    # Others

    def contexts(self, outcome: str, count: int = 1) -> None:
        self._contexts.labels(outcome).inc(count)

    def stored(self, operation: str, outcome: str, seconds: float) -> None:
        if operation not in self._operations:
            self._operations.add(operation)
            for word in STORE_OUTCOMES:
                self._stored.labels(operation, word)
        self._stored.labels(operation, outcome).inc()
        self._stored_s.labels(operation).observe(seconds)

    def ari(self, credential: str, outcome: str) -> None:
        self._ari.labels(credential, outcome).inc()

    def upstream(self, assistant_id: str, step: str, outcome: str) -> None:
        self._upstream.labels(self.rule_of(assistant_id), step, outcome).inc()

    def webhook(self, outcome: str) -> None:
        self._webhook.labels(outcome).inc()

    def refused(self, what: str, count: int) -> None:
        self._limits.labels(what).inc(count)

    def queued(self, all_s: float, most_s: float) -> None:
        self._queued_s.set(all_s)
        self._queued_most_s.set(most_s)

    def instant(self, now: Instant) -> None:
        self._draining.set(now.draining)
        self._coming.set(now.calls_coming)
        self._unwritten.set(now.ends_unwritten)
        self._silent.set(now.audiosocket_waiting)
        self._load.set(now.tick_load)
        self._p99_s.set(now.lateness_p99_s)
        self._max_s.set(now.lateness_max_s)
        for rule, current in now.breakers.items():
            for state in BREAKER_STATES:
                self._breaker.labels(rule, state).set(state == current)

    def process(self) -> None:
        for figure in self._process.collect():
            value = figure.samples[0].value
            if figure.type == "counter":
                if self._cpu is None:
                    self._cpu = Counter(figure.name, figure.documentation, registry=self._own)
                self._cpu.inc(max(0.0, value - self._cpu_s))
                self._cpu_s = value
                continue
            gauge = self._process_gauges.get(figure.name)
            if gauge is None:
                gauge = self._process_gauges[figure.name] = Gauge(
                    figure.name, figure.documentation, registry=self._own, multiprocess_mode="liveall"
                )
            gauge.set(value)

    # The page

    async def page(self) -> bytes:
        """All figures. Requests during its making, and for 1 s after it, get the same page."""
        if time.monotonic() - self._page_made_s < KEEP_PAGE_S:
            return self._page
        waiting: Deferred[bytes] = Deferred()
        self._waiting_for_page.append(waiting)
        if len(self._waiting_for_page) == 1:
            # On its own: the first request may be cancelled.
            Deferred.fromCoroutine(self._make()).addBoth(self._made)
        return await waiting

    def _made(self, result: bytes | Failure) -> None:
        if isinstance(result, bytes):
            self._page, self._page_made_s = result, time.monotonic()
        waiters, self._waiting_for_page = self._waiting_for_page, []
        for waiting in waiters:
            # A cancelled one accepts and drops it.
            waiting.callback(result)

    async def _make(self) -> bytes:
        parts = []
        began_s = time.perf_counter()
        for part in self._parts():
            parts.append(part)
            if time.perf_counter() - began_s > SLICE_S:
                await deferLater(self._reactor, 0)
                began_s = time.perf_counter()
        return b"".join(parts)

    def _parts(self) -> Iterator[bytes]:
        """The page in parts, each made quickly."""
        for family in self._families():
            samples = family.samples
            for begin in range(0, max(1, len(samples)), SAMPLES_A_PART):
                family.samples = samples[begin : begin + SAMPLES_A_PART]
                part = generate_latest(_One(family))
                # Help and type appear once above a family.
                yield part if begin == 0 else part.split(b"\n", 2)[2]

    def _families(self) -> Iterator[Metric]:
        if not self._shared:
            yield from self._own.collect()
            return
        # One kind after another: all at once would block too long.
        kinds: dict[str, list[str]] = {}
        for file in sorted(Path(self._shared).glob("*.db")):
            kinds.setdefault(file.name.rpartition("_")[0], []).append(str(file))
        for files in kinds.values():
            yield from MultiProcessCollector.merge(files, accumulate=True)


class ProcessFigures(ProcessCollector):
    """The library's own, without ``/proc/stat``: the unit's ``ProcSubset=pid`` hides it."""

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class _One(Collector):
    """A registry of one family, for ``generate_latest()``."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)
