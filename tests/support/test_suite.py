"""What ``script/test`` makes of the output of its parts."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support.suite import REPOSITORY, outcome_of_check, outcome_of_trial

SKIPPED = """\
tests.store.test_redis
  RedisTests
    test_it ...                                                       [SKIPPED]

===============================================================================
[SKIPPED]
redis-server is missing: there is no redis-server,
and no apt-get to install it with

tests.store.test_redis.RedisTests.test_it
tests.store.test_redis.RedisTests.test_that
===============================================================================
[FAIL]
Traceback (most recent call last):
-------------------------------------------------------------------------------
Ran 7 tests in 0.1s

FAILED (skips=2, failures=1, errors=2, successes=2)
"""


class OutcomeTests(SynchronousTestCase):
    """Counts, and why tests were skipped."""

    def test_trial(self) -> None:
        """Failures and errors are failed tests; a reason is one line."""
        outcome = outcome_of_trial(SKIPPED, 1)
        self.assertEqual((outcome.passed, outcome.failed, outcome.skipped), (2, 3, 2))
        reason = "redis-server is missing: there is no redis-server, and no apt-get to install it with"
        self.assertEqual(outcome.reasons, {reason: 2})

    def test_passed(self) -> None:
        """A run without a failure."""
        outcome = outcome_of_trial("Ran 3 tests in 0.1s\n\nPASSED (successes=3)\n", 0)
        self.assertEqual((outcome.passed, outcome.failed, outcome.skipped), (3, 0, 0))

    def test_crash(self) -> None:
        """A run that ends without a verdict has failed."""
        self.assertEqual(outcome_of_trial("Segmentation fault", 139).failed, 1)

    def test_empty(self) -> None:
        """A run in which no test ran has failed, whatever its exit code."""
        self.assertEqual(outcome_of_trial("Ran 0 tests in 0.000s\n\nPASSED\n", 0).failed, 1)

    def test_check(self) -> None:
        """A check says what it saw in its last line."""
        outcome = outcome_of_check("one\ntwo\n\n", 0)
        self.assertEqual((outcome.passed, outcome.failed, outcome.note), (1, 0, "two"))
        self.assertEqual(outcome_of_check("", 2).failed, 1)


class PlacesTests(SynchronousTestCase):
    """Who may import whom."""

    def test_benchmarks(self) -> None:
        """Benchmarks import nothing from the tests."""
        benchmarks = REPOSITORY / "benchmarks"
        places = [path for path in benchmarks.rglob("*") if path.suffix == ".py" or path.name in ("faults", "fuzz")]
        pattern = re.compile(r"^\s*(from|import) tests\b", re.MULTILINE)
        found = [str(path) for path in places if pattern.search(path.read_text())]
        self.assertEqual(found, [])
