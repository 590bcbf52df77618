"""The figures as Prometheus reads them, in one process."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import EndReason
from rapida_twisted.observe.interface import CallFigures, Instant
from rapida_twisted.observe.multiprocess import open_metrics
from rapida_twisted.observe.prometheus import KEEP_PAGE_S, ProcessFigures, PrometheusMetrics
from tests.media.fakes import make_context
from tests.observe.turns import TurningClock


def filled(reactor: Any) -> PrometheusMetrics:
    """Metrics that were told one of everything."""
    metrics = PrometheusMetrics(reactor)
    metrics.set_rules(("42", "*"))
    context = replace(make_context(assistant_id="42"), transport="audiosocket")
    metrics.call_refused("websocket", "unknown")
    metrics.call_up(context, 0.3)
    metrics.call_over(context, EndReason.CALLER_HANGUP, 12.0)
    metrics.call_up(replace(context, assistant_id="0049301234567"), 0.3)
    metrics.call_abandoned("websocket", EndReason.PROTOCOL_ERROR)
    metrics.flushed("audiosocket", 0.0002, 1.5)
    metrics.frames("audiosocket", CallFigures(100.5, 80, 20, 1, 0.5))
    metrics.frames_missing("audiosocket", 3)
    metrics.frames_late("20ms", 2)
    metrics.frames_skipped(4)
    metrics.blocked("42", 2.5)
    metrics.contexts("registered")
    metrics.stored("claim", "ok", 0.003)
    metrics.ari("pbx", "2xx")
    metrics.upstream("42", "connect", "ok")
    metrics.webhook("5xx")
    metrics.refused("http.overdue", 6)
    metrics.queued(0.5, 0.2)
    metrics.instant(Instant(breakers={"42": "half-open"}, calls_coming=1))
    metrics.process()
    return metrics


class PageTests(SynchronousTestCase):
    """The page."""

    def setUp(self) -> None:
        self.reactor = TurningClock()

    def read(self, metrics: PrometheusMetrics) -> str:
        """The page, made in as many turns of the reactor as it takes."""
        making = Deferred.fromCoroutine(metrics.page())
        for _ in range(1000):
            if making.called:
                break
            self.reactor.turn()
        return self.successResultOf(making).decode()

    def samples(self, metrics: PrometheusMetrics) -> dict[str, float]:
        """All samples, by their names with labels."""
        text = self.read(metrics)
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def test_values(self) -> None:
        """What was told is there."""
        samples = self.samples(filled(self.reactor))
        for name, value in {
            'rapida_calls{assistant="42",transport="audiosocket"}': 0,
            'rapida_calls{assistant="*",transport="audiosocket"}': 1,
            'rapida_calls_ended_total{assistant="42",reason="caller_hangup",transport="audiosocket"}': 1,
            'rapida_call_setup_seconds_count{direction="inbound",transport="audiosocket"}': 2,
            'rapida_call_duration_seconds_sum{transport="audiosocket"}': 12,
            'rapida_media_refused_total{reason="unknown",transport="websocket"}': 1,
            'rapida_frames_received_total{transport="audiosocket"}': 100.5,
            'rapida_frames_sent_total{transport="audiosocket"}': 80,
            'rapida_frames_silence_total{transport="audiosocket"}': 20,
            'rapida_frames_missing_total{transport="audiosocket"}': 3,
            'rapida_frames_late_total{over="20ms"}': 2,
            "rapida_frames_skipped_total": 4,
            'rapida_reactor_blocked_seconds_total{assistant="42"}': 2.5,
            'rapida_barge_in_seconds_count{transport="audiosocket"}': 1,
            'rapida_store_operations_total{operation="claim",outcome="ok"}': 1,
            'rapida_ari_requests_total{credential="pbx",outcome="2xx"}': 1,
            'rapida_upstream_requests_total{assistant="42",outcome="ok",step="connect"}': 1,
            'rapida_upstream_breaker{assistant="42",state="half-open"}': 1,
            'rapida_upstream_breaker{assistant="42",state="closed"}': 0,
            'rapida_webhook_requests_total{outcome="5xx"}': 1,
            'rapida_limit_refusals_total{limit="http.overdue"}': 6,
            "rapida_playout_queued_seconds": 0.5,
            "rapida_calls_coming": 1,
        }.items():
            self.assertEqual(samples.get(name), value, name)
        self.assertGreater(samples["process_resident_memory_bytes"], 10_000_000)
        self.assertGreater(samples["process_cpu_seconds_total"], 0)
        self.assertGreater(samples["process_open_fds"], 2)

    def test_process_start(self) -> None:
        """The process's figures need no /proc/stat, which the unit's ProcSubset=pid hides."""
        self.patch(ProcessCollector, "_boot_time", lambda _: self.fail("it read /proc/stat"))
        found = {metric.name: metric.samples[0].value for metric in ProcessFigures(registry=None).collect()}
        self.assertTrue(0 < time.time() - found["process_start_time_seconds"] < 86_400, found)

    def test_conventions(self) -> None:
        """Names begin with the program's and have no other units than Prometheus'; each has a text."""
        families = list(text_string_to_metric_families(self.read(filled(self.reactor))))
        self.assertGreater(len(families), 30)
        for family in families:
            self.assertTrue(family.documentation.endswith("."), family.name)
            self.assertRegex(family.name, r"^(rapida|process)_[a-z_0-9]+$")
            self.assertNotRegex(family.name, r"_(ms|milliseconds|kb|percent)\b")
            if family.type == "histogram":
                self.assertTrue(family.name.endswith("_seconds"), family.name)
            self.assertNotIn("_created", " ".join(sample.name for sample in family.samples))

    def test_no_ids(self) -> None:
        """No number that was dialled, no contextId and no address is in any label."""
        text = self.read(filled(self.reactor))
        self.assertNotIn("0049301234567", text)
        self.assertNotIn("6b0e2a52", text)
        self.assertIsNone(re.search(r"\d+\.\d+\.\d+\.\d+", text))

    def test_in_slices(self) -> None:
        """A page that takes long leaves the reactor its turns; who asks meanwhile gets the same page."""
        metrics = filled(self.reactor)
        for number in range(400):
            metrics.ari(f"pbx{number}", "2xx")
            metrics.stored(f"operation{number}", "ok", 0.001)
        making = [Deferred.fromCoroutine(metrics.page()) for _ in range(2)]
        self.assertNoResult(making[0])
        # The first one goes away: the other still gets it.
        making[0].cancel()
        making[0].addErrback(lambda _: None)
        turns = 0
        while self.reactor.getDelayedCalls():
            self.reactor.turn()
            turns += 1
        self.assertGreater(turns, 1)
        page = self.successResultOf(making[1]).decode()
        self.assertIn("pbx399", page)
        (family,) = (found for found in text_string_to_metric_families(page) if found.name == "rapida_ari_requests")
        self.assertEqual(len(family.samples), 401)

    def test_kept_for_a_second(self) -> None:
        """A flood of scrapes makes no more than a page a second."""
        metrics = filled(self.reactor)
        first = self.read(metrics)
        metrics.ari("late", "2xx")
        self.assertEqual(self.read(metrics), first)
        metrics._page_made_s -= KEEP_PAGE_S
        self.assertIn('credential="late"', self.read(metrics))

    def test_opened(self) -> None:
        """The library is there, so its metrics are taken."""
        self.assertIsInstance(open_metrics(self.reactor), PrometheusMetrics)
