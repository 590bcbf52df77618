"""A test that waits for what the assistant says."""

import wave

from menu_bot import Menu
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted import FakeCall


class MenuTests(SynchronousTestCase):
    def setUp(self) -> None:
        with wave.open("menu.wav", "wb") as menu:
            menu.setparams((1, 2, 8000, 0, "NONE", ""))
            menu.writeframes(bytes(16000 * 3))
        self.call = FakeCall(Menu())
        self.call.start()

    def test_choice_after_the_menu(self) -> None:
        self.call.advance_until(lambda: "menu.wav" in self.call.said_texts)
        self.assertEqual(self.call.said_ms, 3000)
        self.call.press("2")
        self.assertEqual(self.call.transferred_to, "PJSIP/300")

    def test_choice_interrupts_the_menu(self) -> None:
        self.call.advance(1.0)
        self.call.press("1")
        self.assertEqual(self.call.transferred_to, "PJSIP/200")
        self.assertAlmostEqual(self.call.said_ms, 1000, delta=20)

    def test_no_choice(self) -> None:
        self.call.advance(11.0)
        self.assertTrue(self.call.hung_up)
