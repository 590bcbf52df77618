"""Secrets do not get into a log, in whatever form they stand in a text."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from urllib.parse import quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.asterisk.vault.master_key import make_master_key, split_master_key
from rapida_twisted.credentials.masking import MASK, Secrets, masked
from tests.support.settings import make_settings

AWKWARD = "p\"w'd \\ä%+/&=:"


class KnownSecretsTests(SynchronousTestCase):
    """Those that registered themselves."""

    def test_forms(self) -> None:
        """As it is, quoted by Python and by JSON, and percent-encoded."""
        secrets = Secrets()
        secrets.keep(AWKWARD)
        for form in (
            AWKWARD, repr(AWKWARD), repr(AWKWARD.encode()),
            json.dumps(AWKWARD), json.dumps(AWKWARD, ensure_ascii=False),
            quote(AWKWARD), quote(AWKWARD, safe=""), quote_plus(AWKWARD), quote(quote(AWKWARD)),
        ):  # fmt: skip
            text = secrets.masked(f"before {form} after")
            self.assertIn(MASK, text, form)
            self.assertTrue(text.startswith("before ") and text.endswith(" after"), text)
            self.assertNotIn("w", text.removeprefix("before ").removesuffix(" after"), form)

    def test_one_begins_with_another(self) -> None:
        """The longer one is masked whole."""
        secrets = Secrets()
        secrets.keep("begins-alike", "begins-alike-and-goes-on")
        self.assertEqual(secrets.masked("begins-alike-and-goes-on begins-alike"), f"{MASK} {MASK}")

    def test_many(self) -> None:
        """A new secret costs no more when hundreds are known: patterns are made when a text needs them."""

        def compiled(*_: object) -> None:
            self.fail("a pattern was made")

        secrets = Secrets()
        self.patch(re, "compile", compiled)
        secrets.keep("a-new-secret")
        self.assertEqual(secrets.masked("with a-new-secret in it"), f"with {MASK} in it")

    def test_short_ones(self) -> None:
        """What is so short that it stands in many words is not masked."""
        secrets = Secrets()
        secrets.keep("ab", "", "call"[:3])
        self.assertEqual(secrets.masked("the cable of a call"), "the cable of a call")

    @given(st.text(st.characters(codec="utf-8"), min_size=4, max_size=30), st.data())
    def test_any_encoding(self, secret: str, data: st.DataObject) -> None:
        """Any of its characters may be percent-encoded, in upper or lower case."""
        secrets = Secrets()
        secrets.keep(secret)
        written = ""
        for character in secret:
            how = data.draw(st.integers(0, 2))
            codes = "".join(f"%{byte:02X}" for byte in character.encode())
            written += (character, codes, codes.lower())[how]
        self.assertNotIn(written, secrets.masked(f"GET /x?{written} 200"))

    def test_who_registers(self) -> None:
        """The settings name their secrets; a credential and a master key register themselves."""
        settings = make_settings(
            rapida_api_key=("first-key-1", "second-key-2"), upstream_api_key="upstream-key-3",
            status_webhook_secret="hook-4",
            vault_master_key="master-5", store_url="redis://user:store-6@127.0.0.1/0",
        )  # fmt: skip
        self.assertEqual(
            set(settings.secrets),
            {"first-key-1", "second-key-2", "upstream-key-3", "hook-4", "master-5", "store-6"},
        )
        AriCredential(name="pbx", ari_url="http://127.0.0.1:8088", ari_user="rapida", ari_password="ari-password-7")
        token = b64encode(b"rapida:ari-password-7").decode()
        self.assertEqual(masked(f"ari-password-7 {token}"), f"{MASK} {MASK}")
        key = make_master_key()
        split_master_key(key)
        self.assertEqual(masked(f"key {key}"), f"key {MASK}")


class PatternTests(SynchronousTestCase):
    """What looks like a secret is one, though nobody knows it."""

    def test_keys(self) -> None:
        """Wherever a key is named, what follows is masked, and nothing else."""
        for text, wanted in {
            "GET /x?from=1&x-api-key=abc-1&to=2 HTTP": "GET /x?from=1&x-api-key=***&to=2 HTTP",
            "GET /x?X_API_KEY=abc-1": "GET /x?X_API_KEY=***",
            "GET /x?x%2Dapi%2dkey%3dabc-1": "GET /x?x%2Dapi%2dkey%3d***",
            "{'x-api-key': 'abc-1', 'to': '2'}": "{'x-api-key': '***', 'to': '2'}",
            "{b'x-api-key': [b'abc-1'], b'to': [b'2']}": "{b'x-api-key': [b'***'], b'to': [b'2']}",
            '{"x-api-key":"abc-1"}': '{"x-api-key":"***"}',
            "X-Api-Key: abc-1\r\nHost: x": "X-Api-Key: ***\r\nHost: x",
            "Authorization: Bearer abc-1": "Authorization: Bearer ***",
            "authorization=Basic YWJjLTE=": "authorization=Basic ***",
            "(b'Authorization', b'Bearer abc-1')": "(b'Authorization', b'Bearer ***')",
            "redis://user:abc-1@host:6379/0": "redis://user:***@host:6379/0",
            "x-api-key=***": "x-api-key=***",
        }.items():
            self.assertEqual(masked(text), wanted)

    def test_nothing_else(self) -> None:
        """Ordinary lines are left as they are."""
        for text in (
            "call 6b0e2a52-8f4c-4a53-9c3e-3d3b6d7c0f11: over, caller_hangup; heard 1.0 s, said 1.0 s",
            "an API key is needed; put it into x-api-key, or into Authorization",
            "listening: HTTP on port 8080, http://127.0.0.1:8080/metrics and ws://[::1]:8080/x?a=b@c",
        ):
            self.assertEqual(masked(text), text)
