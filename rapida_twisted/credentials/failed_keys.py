"""Slows those who try keys: the refusals of an address that sends many wrong ones come late. Pure.

The right key is never delayed, so nobody can lock out a client that shares its address.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from rapida_twisted.net.token_bucket import TokenBucket

__all__ = ["FREE_PER_MINUTE", "FailedKeys"]

FREE_PER_MINUTE = 60
"""Refusals of an address that come at once."""
DELAY_S = 1.0
KNOWN_ADDRESSES = 4096
"""Failures are counted for the N most recently seen addresses."""


class FailedKeys:
    """Counts the wrong keys of each address."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def delay_s(self, address: Hashable, now_s: float) -> float:
        """Count a wrong key; returns how long (s) its refusal is to wait.

        :param address: or the group of addresses that one client may have.
        :param now_s: a monotonic time.
        """
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(FREE_PER_MINUTE / 60, now_s, FREE_PER_MINUTE)
            if len(self._buckets) > KNOWN_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return 0.0 if bucket.take(now_s) else DELAY_S
