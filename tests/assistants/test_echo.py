"""The echo says what it hears."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.assistants.echo import Echo
from rapida_twisted.audio.tones import tone
from rapida_twisted.context import EndReason
from rapida_twisted.testing import FakeCall
from tests.assistants.calls import talk


class EchoTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.call = FakeCall(Echo())
        self.call.start()

    def test_says_what_it_hears(self) -> None:
        """Whatever the packets' length, all of it comes back, in its order and with nothing in between."""
        for packet_ms in (10, 20, 30, 60):
            call = FakeCall(Echo())
            call.start()
            sound = tone(440, 600, 8000)
            talk(call, sound, packet_ms)
            call.advance(0.2)
            self.assertEqual(call.said.strip(b"\0"), sound.strip(b"\0"), packet_ms)

    def test_at_once(self) -> None:
        """It comes back with the next frame."""
        self.call.hear(b"\1\0" * 160)
        self.call.advance(0.025)
        self.assertIn(b"\1\0" * 160, self.call.said)

    def test_a_flood_does_not_wait(self) -> None:
        """Of audio that comes faster than time only the newest is said, so the delay cannot grow."""
        for number in range(1, 501):
            self.call.hear(number.to_bytes(2, "little") * 160)
        self.call.advance(1)
        heard = self.call.said.strip(b"\0")
        self.assertTrue(heard.endswith((500).to_bytes(2, "little") * 160))
        self.assertLessEqual(len(heard), 320 * 10)

    def test_does_not_end(self) -> None:
        """It hangs up on nothing, not even a digit, and takes the end quietly."""
        self.call.press("#")
        self.call.advance(5)
        self.assertFalse(self.call.hung_up)
        self.call.end(EndReason.CALLER_HANGUP)
        self.assertEqual(self.call.call.ended, EndReason.CALLER_HANGUP)
