"""The circuit breaker, on fake time."""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.bridge.breaker import Attempt, CircuitBreaker
from rapida_twisted.errors import UpstreamFailed

NAME = "assistant.example.com:443"


def failure(of_call: bool = False) -> UpstreamFailed:
    """The server failed, or only does not want the call."""
    return UpstreamFailed("refused", f"the upstream {NAME} said no", of_call=of_call)


class BreakerTests(SynchronousTestCase):
    """A breaker that opens at three failures for 5, 10, 20 ... 60 s, not shortened."""

    def setUp(self) -> None:
        """Closed."""
        self.clock = Clock()
        self.jitter = 0.0
        self.breaker = CircuitBreaker(
            NAME,
            failures=3,
            first_pause_s=5.0,
            longest_pause_s=60.0,
            now=self.clock.seconds,
            random=lambda: self.jitter,
        )

    def fail_times(self, times: int) -> None:
        """Several attempts fail."""
        for _ in range(times):
            with self.assertRaises(UpstreamFailed) as caught, self.breaker.enter():
                raise failure()
            self.assertEqual(caught.exception.word, "refused")

    def open_for(self, pause_s: float) -> None:
        """It is open for exactly this long, for every attempt; then it is half open."""
        self.clock.advance(pause_s - 0.01)
        self.assert_resting()
        self.assertEqual(self.breaker.state, "open")
        self.clock.advance(0.02)
        self.breaker.check()
        self.assertEqual(self.breaker.state, "half-open")

    def assert_resting(self) -> None:
        """Nothing passes, and check() says so, too."""
        for ask in (self.breaker.enter, self.breaker.check):
            refused = self.assertRaises(UpstreamFailed, ask)
            self.assertEqual((refused.word, refused.of_call, refused.status), ("resting", False, 0))
            self.assertIn(NAME, str(refused))

    def test_opens(self) -> None:
        """It opens at the third failure in a row, and not before."""
        self.fail_times(2)
        self.assertEqual(self.breaker.state, "closed")
        self.breaker.check()
        self.fail_times(1)
        self.assertEqual(self.breaker.state, "open")
        self.assert_resting()

    def test_in_a_row(self) -> None:
        """A success in between begins the row anew."""
        self.fail_times(2)
        with self.breaker.enter() as attempt:
            attempt.succeeded()
        self.fail_times(2)
        self.assertEqual(self.breaker.state, "closed")

    def test_many_at_once(self) -> None:
        """Closed, it lets any number pass at once; what fails after it opened does not make the pause longer."""
        attempts = [self.breaker.enter() for _ in range(10)]
        for attempt in attempts:
            attempt.failed(failure())
            self.clock.advance(0.1)
        self.assertEqual(self.breaker.health()["failures"], 3)
        self.open_for(5.0 - 0.8)

    def test_what_says_nothing(self) -> None:
        """A call that is not wanted, one that was cancelled, an error of ours, no word: neither good nor bad."""
        self.fail_times(2)
        for error in (failure(of_call=True), CancelledError(), ValueError("ours"), None):
            try:
                with self.breaker.enter():
                    if error is not None:
                        raise error
            except Exception as caught:
                self.assertIs(caught, error)
            self.assertEqual((self.breaker.state, self.breaker.health()["failures"]), ("closed", 2))
        self.fail_times(1)
        self.assertEqual(self.breaker.state, "open")

    def test_one_probe(self) -> None:
        """Half open, one attempt passes, and no other until it has ended."""
        self.fail_times(3)
        self.open_for(5.0)
        with self.breaker.enter() as probe:
            self.assert_resting()
            self.clock.advance(100.0)
            self.assert_resting()
            self.assertEqual(self.breaker.state, "half-open")
            probe.succeeded()
            self.assertEqual(self.breaker.state, "closed")
            self.breaker.check()
        self.assertEqual(self.breaker.state, "closed")

    def test_probe_dropped(self) -> None:
        """A probe that came to nothing frees its place, and is no failure."""
        self.fail_times(3)
        self.open_for(5.0)
        self.breaker.enter().dropped()
        self.assertEqual(self.breaker.state, "half-open")
        for error in (CancelledError(), failure(of_call=True), GeneratorExit()):
            with self.assertRaises(type(error)), self.breaker.enter():
                self.assert_resting()
                raise error
            self.breaker.check()
            self.assertEqual((self.breaker.state, self.breaker.health()["failures"]), ("half-open", 3))

    def test_pauses_grow(self) -> None:
        """A probe that fails opens it again for twice as long, up to a limit; a success starts from the first."""
        self.fail_times(3)
        for pause_s in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
            self.open_for(pause_s)
            self.fail_times(1)
            self.assertEqual(self.breaker.state, "open")
        self.open_for(60.0)
        self.breaker.enter().succeeded()
        self.fail_times(2)
        self.assertEqual(self.breaker.state, "closed")
        self.fail_times(1)
        self.open_for(5.0)

    def test_jitter(self) -> None:
        """Pauses are shortened by up to a fifth; the next one grows from the whole."""
        self.jitter = 1.0
        self.fail_times(3)
        self.open_for(4.0)
        self.fail_times(1)
        self.open_for(8.0)
        self.jitter = 0.5
        self.fail_times(1)
        self.open_for(18.0)

    def test_late_news(self) -> None:
        """What an attempt from before it opened tells neither closes it nor takes the probe's place, nor frees it."""
        early = [self.breaker.enter() for _ in range(5)]
        self.fail_times(3)
        early[0].succeeded()
        early[1].failed(failure())
        self.assertEqual(self.breaker.state, "open")
        self.assertEqual(self.breaker.health()["failures"], 3)
        self.open_for(5.0)
        probe = self.breaker.enter()
        early[2].dropped()
        early[3].succeeded()
        self.assert_resting()
        probe.succeeded()
        early[4].failed(failure())
        self.assertEqual(self.breaker.health()["failures"], 0)

    def test_late_probe(self) -> None:
        """A second word of an earlier probe is nothing to the next one."""
        self.fail_times(3)
        self.open_for(5.0)
        first = self.breaker.enter()
        first.dropped()
        second = self.breaker.enter()
        first.succeeded()
        first.dropped()
        self.assert_resting()
        second.failed(failure())
        self.assertEqual(self.breaker.state, "open")

    def test_first_word_counts(self) -> None:
        """What was said in the block holds, however that ends."""
        self.fail_times(2)
        with self.assertRaises(UpstreamFailed), self.breaker.enter() as attempt:
            attempt.dropped()
            raise failure()
        self.assertEqual(self.breaker.health()["failures"], 2)
        with self.breaker.enter() as attempt:
            attempt.failed(failure())
            attempt.succeeded()
        self.assertEqual(self.breaker.state, "open")

    def test_health(self) -> None:
        """What /readyz shows, which is JSON."""
        closed = {"state": "closed", "failures": 0, "retry_in_s": None, "last_error": ""}
        self.assertEqual(self.breaker.health(), closed)
        self.fail_times(3)
        self.clock.advance(1.26)
        words = f"the upstream {NAME} said no"
        self.assertEqual(
            self.breaker.health(), {"state": "open", "failures": 3, "retry_in_s": 3.7, "last_error": words}
        )
        json.dumps(self.breaker.health())
        self.clock.advance(3.75)
        self.assertEqual(
            self.breaker.health(), {"state": "half-open", "failures": 3, "retry_in_s": None, "last_error": words}
        )
        self.breaker.enter().succeeded()
        self.assertEqual(self.breaker.health(), closed)

    def test_log(self) -> None:
        """One line when it opens, with the last error, and one when it closes; else none."""
        with capturedLogs() as events:
            self.fail_times(3)
            self.assert_resting()
            self.clock.advance(5.0)
            self.breaker.enter().dropped()
            self.breaker.enter().succeeded()
            self.breaker.enter().succeeded()
        self.assertEqual(
            [(event["log_level"], formatEvent(event)) for event in events],
            [
                (
                    LogLevel.warn,
                    f"the upstream {NAME} failed 3 times in a row and is not tried for 5.0 s;"
                    f" last failure: the upstream {NAME} said no",
                ),
                (LogLevel.info, f"the upstream {NAME} accepts calls again"),
            ],
        )

    def test_error_texts(self) -> None:
        """The error says how long the pause still is, and after how many failures."""
        self.fail_times(3)
        refused = self.assertRaises(UpstreamFailed, self.breaker.check)
        self.assertEqual(str(refused), f"the upstream {NAME} is not tried for another 5.0 s, after 3 failures in a row")
        self.clock.advance(5.0)
        self.breaker.enter()
        refused = self.assertRaises(UpstreamFailed, self.breaker.check)
        self.assertEqual(str(refused), f"the upstream {NAME} is being tried by another call after 3 failures in a row")

    def test_defaults(self) -> None:
        """As it is used: five failures, and a pause from 4 to 5 s on the machine's own clock."""
        breaker = CircuitBreaker(NAME)
        for _ in range(5):
            self.assertEqual(breaker.state, "closed")
            breaker.enter().failed(failure())
        self.assertEqual(breaker.state, "open")
        self.assertTrue(3.5 < breaker.health()["retry_in_s"] <= 5.0)


class Machine(RuleBasedStateMachine):
    """Any order of attempts, outcomes and time, against a plain model."""

    MOST = 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = CircuitBreaker(
            NAME,
            failures=self.MOST,
            first_pause_s=4.0,
            longest_pause_s=16.0,
            now=self.clock.seconds,
            random=lambda: 0.0,
        )
        self.under_way: list[Attempt] = []
        self.fresh: set[int] = set()
        """Those whose news counts."""
        self.row = 0
        self.opened_at: float | None = None
        self.pause_s = 4.0
        self.probing: int | None = None

    def lets_pass(self) -> bool:
        """Whether the model would."""
        if self.opened_at is None:
            return True
        return self.clock.seconds() >= self.opened_at + self.pause_s and self.probing is None

    @rule()
    def enter(self) -> None:
        """Try."""
        try:
            attempt = self.breaker.enter()
        except UpstreamFailed as error:
            assert error.word == "resting"
            assert not self.lets_pass()
            return
        assert self.lets_pass()
        self.under_way.append(attempt)
        self.fresh.add(id(attempt))
        if self.opened_at is not None:
            self.probing = id(attempt)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), news=st.sampled_from(["succeeded", "failed", "of_call", "dropped"]))
    def tell(self, data: st.DataObject, news: str) -> None:
        """One of those under way ends."""
        attempt = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if news in ("failed", "of_call"):
            attempt.failed(failure(of_call=news == "of_call"))
        else:
            getattr(attempt, news)()
        if id(attempt) in self.fresh:
            self.fresh.discard(id(attempt))
            self.follow(news, probe=self.probing == id(attempt))

    def follow(self, news: str, probe: bool) -> None:
        """The model, after news that count."""
        if probe:
            self.probing = None
        if news == "succeeded":
            self.row = 0
            if probe:
                self.opened_at = None
                self.fresh.clear()
        elif news == "failed":
            self.row += 1
            if probe or self.row >= self.MOST:
                self.pause_s = min(16.0, 2.0 * self.pause_s) if probe else 4.0
                self.opened_at = self.clock.seconds()
                self.fresh.clear()

    @rule(seconds=st.sampled_from([0.5, 3.0, 4.0, 16.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.advance(seconds)

    @invariant()
    def agree(self) -> None:
        """The breaker and the model tell the same."""
        health = self.breaker.health()
        assert (health["state"] == "closed") == (self.opened_at is None)
        assert health["failures"] == self.row
        try:
            self.breaker.check()
            passes = True
        except UpstreamFailed:
            passes = False
        assert passes == self.lets_pass()


class MachineTests(SynchronousTestCase):
    """The same under any order of events."""

    def test_any_order(self) -> None:
        """It does what a plain model of it does."""
        run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))
