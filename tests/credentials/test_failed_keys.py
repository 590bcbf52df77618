"""Wrong keys, slowed for each address."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.credentials import failed_keys
from rapida_twisted.credentials.failed_keys import DELAY_S, FREE_PER_MINUTE, FailedKeys


class FailedKeysTests(SynchronousTestCase):
    """Delays of refusals."""

    def test_delays(self) -> None:
        """Some are refused at once, then each waits until the minute is over; other addresses are not concerned."""
        failed = FailedKeys()
        self.assertEqual([failed.delay_s("a", 0.0) for _ in range(FREE_PER_MINUTE)], [0.0] * FREE_PER_MINUTE)
        self.assertEqual(failed.delay_s("a", 0.0), DELAY_S)
        self.assertEqual(failed.delay_s("b", 0.0), 0.0)
        self.assertEqual([failed.delay_s("a", now_s) for now_s in (59.0, 60.0, -10.0)], [DELAY_S, 0.0, 0.0])

    def test_many_addresses(self) -> None:
        """Their number is limited: those not seen for longest are forgotten."""
        self.patch(failed_keys, "KNOWN_ADDRESSES", 3)
        failed = FailedKeys()
        for _ in range(FREE_PER_MINUTE + 1):
            failed.delay_s("a", 0.0)
        for address in ("b", "a", "c", "d"):
            failed.delay_s(address, 0.0)
        self.assertEqual(failed.delay_s("a", 0.0), DELAY_S)
        self.assertEqual(failed.delay_s("b", 0.0), 0.0)
        self.assertEqual(len(failed._counted), 3)
