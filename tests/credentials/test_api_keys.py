"""API keys: which are accepted, and that they are not shown."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.credentials.api_keys import ApiKeys


class ApiKeysTests(SynchronousTestCase):
    """ApiKeys holds several keys and shows none."""

    def test_accepts(self) -> None:
        """Each of the keys is accepted, and nothing that is near to one."""
        keys = ApiKeys(("one", "twö"))
        for good in ("one", "twö"):
            self.assertTrue(keys.accepts(good))
        for bad in ("", "on", "one ", "ONE", "onetwö", "\udcff", "\x00"):
            self.assertFalse(keys.accepts(bad), bad)

    def test_empty_key(self) -> None:
        """An empty key is none, so that a request without a key never passes."""
        self.assertFalse(ApiKeys(("", "one")).accepts(""))
        self.assertRaises(ValueError, ApiKeys, ("",))
        self.assertRaises(ValueError, ApiKeys, ())

    def test_repr(self) -> None:
        """No key is in the repr, or anywhere in the object."""
        keys = ApiKeys(("sesame", "other"))
        self.assertNotIn("sesame", repr(keys))
        self.assertNotIn("sesame", repr(vars(keys)))
