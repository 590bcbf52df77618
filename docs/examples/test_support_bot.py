"""A test of an assistant, without a network and without waiting."""

from support_bot import Support
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted import FakeCall


class SupportTests(SynchronousTestCase):
    def test_wrong_pin_is_hung_up(self) -> None:
        call = FakeCall(Support())
        call.start()
        call.advance(1.0)
        call.press("9999")
        call.advance(0.1)
        self.assertTrue(call.hung_up)
