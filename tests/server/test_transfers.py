"""Where calls may be transferred to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import SettingsError, TransferRefused
from rapida_twisted.server.transfers import NO_TRANSFERS, TransferRules


class TransferRulesTests(SynchronousTestCase):
    """The whitelist."""

    def test_none_by_default(self) -> None:
        """Without a pattern, nothing is allowed."""
        self.assertRaises(TransferRefused, NO_TRANSFERS.check, "PJSIP/200")

    def test_patterns(self) -> None:
        """What a pattern names is allowed, and nothing beside it."""
        rules = TransferRules(["PJSIP/2??", "Local/*@internal"])
        for allowed in ("PJSIP/200", "PJSIP/299", "Local/7@internal"):
            rules.check(allowed)
        for refused in ("PJSIP/2000", "pjsip/200", "SIP/200", "Local/7@outside", "PJSIP/100", ""):
            self.assertRaises(TransferRefused, rules.check, refused)

    def test_nothing_breaks_out_of_the_dialplan(self) -> None:
        """Not even a pattern that allows everything lets through what the dialplan would read as its own."""
        rules = TransferRules(["*/*"])
        for text in ("PJSIP/1,30", "PJSIP/1&PJSIP/2", "PJSIP/${X}", "PJSIP/1)", 'PJSIP/1"', "PJSIP/1\n", "PJSIP/1;x",
                     "PJSIP/1|2", "PJSIP/[1]", "PJSIP/1 2", "PJSIP/1^2", "PJSIP/ä"):  # fmt: skip
            self.assertRaises(TransferRefused, rules.check, text)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text is either refused, or made of harmless characters alone."""
        try:
            TransferRules(["*/*"]).check(text)
        except TransferRefused:
            return
        self.assertFalse(set(text) & set(",&$(){}[];|^\"'\\\r\n\t "))
        self.assertTrue(text.isascii())

    def test_bad_pattern(self) -> None:
        """A pattern that can't match a dial string is refused in one sentence."""
        for pattern in ("200", "PJSIP/2,3", ""):
            error = self.assertRaises(SettingsError, TransferRules, [pattern])
            self.assertIn("TRANSFER__ALLOW", str(error))
