"""Keys in requests: where they are found, and that they are not shown."""

from __future__ import annotations

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.web.request_key import mask_key
from tests.web.in_memory import KEY, OTHER_KEY, InMemoryHttp


class KeyOfTests(SynchronousTestCase):
    """Where a request may carry its key."""

    def status(self, target: str, **headers: str) -> int:
        """The status of a request without a key but for what is given."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return InMemoryHttp().request(target, headers=named, key=None).status

    def test_places(self) -> None:
        """The query, the header, a bearer token, and the password of basic authentication."""
        basic = b64encode(f"rapida:{KEY}".encode()).decode()
        self.assertEqual(self.status(f"/v1/calls?x-api-key={KEY}"), 200)
        self.assertEqual(self.status("/v1/calls", X_Api_Key=OTHER_KEY), 200)
        self.assertEqual(self.status("/v1/calls", Authorization=f"Bearer {KEY}"), 200)
        self.assertEqual(self.status("/v1/calls", Authorization=f"bearer  {KEY} "), 200)
        self.assertEqual(self.status("/v1/calls", Authorization=f"Basic {basic}"), 200)

    def test_order(self) -> None:
        """The first place that holds something decides; an empty one holds nothing."""
        self.assertEqual(self.status(f"/v1/calls?x-api-key={KEY}", X_Api_Key="bad"), 200)
        self.assertEqual(self.status("/v1/calls?x-api-key=bad", X_Api_Key=KEY), 401)
        self.assertEqual(self.status("/v1/calls?x-api-key=", X_Api_Key=KEY), 200)
        self.assertEqual(self.status("/v1/calls", X_Api_Key="bad", Authorization=f"Bearer {KEY}"), 401)

    def test_no_good(self) -> None:
        """No key, a wrong one, one of another scheme or one that is no text: 401."""
        self.assertEqual(self.status("/v1/calls"), 401)
        self.assertEqual(self.status("/v1/calls?x-api-key=%ff%00"), 401)
        self.assertEqual(self.status("/v1/calls", Authorization=f"Digest {KEY}"), 401)
        self.assertEqual(self.status("/v1/calls", Authorization="Basic !!!"), 401)
        self.assertEqual(self.status("/v1/calls", Authorization="Bearer"), 401)


class MaskKeyTests(SynchronousTestCase):
    """mask_key() takes keys out of a URI and leaves the rest."""

    def test_masked(self) -> None:
        """The value goes wherever it stands and however its name is written."""
        for name in (b"x-api-key", b"X-API-Key", b"x%2Dapi%2dkey", b"x_api_key", b"+x-api-key"):
            self.assertEqual(mask_key(b"/a?from=1&" + name + b"=se=cret&to=2"), b"/a?from=1&" + name + b"=***&to=2")

    def test_left(self) -> None:
        """Everything else stays as it is."""
        for uri in (b"/a", b"/a?", b"/a?b", b"/a?x-api-key", b"/a?&&b=c&", b"/api-key=1?b=\xff"):
            self.assertEqual(mask_key(uri), uri)

    def test_slips_of_the_pen(self) -> None:
        """A key that a mistyped separator has put elsewhere is not shown either."""
        for uri in (
            b"/call/1&from=1&x-api-key=sesame",
            b"/call/1?from=1?x-api-key=sesame",
            b"/call/1?from=1;x-api-key=sesame",
            b"/call/1?from=1&amp;x-api-key=sesame",
            b"/call/1?from=1;x%2Dapi%2dkey%3Dsesame",
        ):
            self.assertNotIn(b"sesame", mask_key(uri), uri)


class MisplacedKeyTests(SynchronousTestCase):
    """A registration whose key is not where keys are."""

    def test_refused_and_not_kept(self) -> None:
        """It is refused, and a key in the middle of a parameter never becomes a number or a variable."""
        http = InMemoryHttp()
        for query in ("from=1;x-api-key=" + KEY, "from=1&amp;x-api-key=" + KEY):
            self.assertEqual(http.request("/v1/talk/asterisk/call/1?" + query, key=None).status, 401)
            response = http.request("/v1/talk/asterisk/call/1?" + query, headers={"x-api-key": KEY}, key=None)
            self.assertEqual(response.status, 400, query)
            self.assertNotIn(KEY, response.reason)
