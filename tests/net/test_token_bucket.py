"""A limit of a rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.net.token_bucket import TokenBucket


class TokenBucketTests(SynchronousTestCase):
    """So many a second."""

    def test_burst_and_rate(self) -> None:
        """At once as many as a second has, then one each time that one's share is over."""
        bucket = TokenBucket(10, 100.0)
        self.assertEqual([bucket.take(100.0) for _ in range(12)], [True] * 10 + [False] * 2)
        self.assertFalse(bucket.take(100.09))
        self.assertTrue(bucket.take(100.11))
        self.assertFalse(bucket.take(100.11))
        self.assertEqual(sum(bucket.take(200.0) for _ in range(50)), 10)

    def test_slow(self) -> None:
        """Less than one a second still lets one in at first."""
        bucket = TokenBucket(0.5, 0.0)
        self.assertEqual([bucket.take(now_s) for now_s in (0.0, 1.0, 2.1, 3.0, 4.2)], [True, False, True, False, True])

    def test_time_goes_back(self) -> None:
        """A clock that goes back gives nothing, and takes nothing."""
        bucket = TokenBucket(1, 100.0)
        self.assertEqual([bucket.take(now_s) for now_s in (100.0, 50.0, 50.5, 51.1)], [True, False, False, True])

    @given(st.floats(1, 1000), st.lists(st.floats(0, 2), max_size=60))
    def test_never_more(self, rate: float, pauses: list[float]) -> None:
        """Over any time it is no more than the rate and one second's burst."""
        bucket, now_s, taken = TokenBucket(rate, 0.0), 0.0, 0
        for pause_s in pauses:
            now_s += pause_s
            taken += bucket.take(now_s)
        self.assertLessEqual(taken, rate * (now_s + 1) + 1e-6)
