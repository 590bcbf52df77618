"""Who is let through to a WebSocket: the key in each of its places, and garbage."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence

from autobahn.twisted.websocket import WebSocketServerFactory
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from zope.interface.verify import verifyObject

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.web.websocket import handshake_gate, websocket_page

KEY = "rpd-göod"
UNKNOWN = (401, "this API key is not known")
MISSING = (401, "an API key is needed")


class Request:
    """What Autobahn tells of a handshake."""

    def __init__(
        self, headers: Mapping[str, str] | None = None, params: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.headers = headers or {}
        self.params = params or {}


def basic(user_and_password: str) -> str:
    """The value of an Authorization header."""
    return "Basic " + b64encode(user_and_password.encode()).decode()


VALUES = st.one_of(
    st.text(max_size=30),
    st.text(max_size=20).map("Basic ".__add__),
    st.text(max_size=20).map(basic),
    st.binary(max_size=20).map(lambda token: "Basic " + b64encode(token).decode()),
)


class DoorTests(SynchronousTestCase):
    """handshake_gate()."""

    def setUp(self) -> None:
        self.door = handshake_gate(ApiKeys((KEY, "other")))

    def says(self, headers: Mapping[str, str] | None = None, **params: Sequence[str]) -> tuple[int, str] | None:
        """What the door says; underscores in names of parameters are dashes."""
        return self.door(Request(headers, {name.replace("_", "-"): values for name, values in params.items()}))

    def test_places(self) -> None:
        """A key opens from the query, the header, as a bearer token, and as the password of basic authentication."""
        for headers, params in (
            ({}, {"x_api_key": [KEY]}),
            ({"x-api-key": KEY}, {}),
            ({"x-api-key": "other"}, {}),
            ({"authorization": f"Bearer {KEY}"}, {}),
            ({"authorization": f" bearer   {KEY} "}, {}),
            ({"authorization": basic(f"rapida:{KEY}")}, {}),
            ({"authorization": basic(f":{KEY}")}, {}),
            ({"authorization": basic(f"rapida:{KEY}").replace("Basic ", "BASIC  ")}, {}),
        ):
            self.assertIsNone(self.says(headers, **params), (headers, params))

    def test_order(self) -> None:
        """The first place that holds something decides; an empty one holds nothing."""
        self.assertIsNone(self.says({"x-api-key": "bad"}, x_api_key=[KEY]))
        self.assertEqual(self.says({"x-api-key": KEY}, x_api_key=["bad"]), UNKNOWN)
        self.assertIsNone(self.says({"x-api-key": KEY}, x_api_key=[""]))
        self.assertIsNone(self.says(x_api_key=["", KEY]))
        self.assertEqual(self.says({"x-api-key": "bad", "authorization": f"Bearer {KEY}"}), UNKNOWN)

    def test_unknown(self) -> None:
        """A key that is not known: 401."""
        for headers, params in (
            ({}, {"x_api_key": ["bad", KEY]}),
            ({"x-api-key": KEY + "x"}, {}),
            ({"authorization": "Bearer bad"}, {}),
            ({"authorization": basic("rapida:bad")}, {}),
            ({"authorization": basic(f"rapida:{KEY}:")}, {}),
            ({"authorization": f"Bearer {KEY} {KEY}"}, {}),
        ):
            self.assertEqual(self.says(headers, **params), UNKNOWN, (headers, params))

    def test_missing(self) -> None:
        """No key, or nothing that could be one: 401, and the reason says that one is needed."""
        for header in (
            "", "Bearer", "Bearer ", "Basic", "Basic !!!", "Basic =", basic(KEY), basic("rapida:"), f"Digest {KEY}",
            KEY, "Basic " + b64encode(b"rapida:\xff\xfe").decode(), "Basic ü",
        ):  # fmt: skip
            self.assertEqual(self.says({"authorization": header}), MISSING, header)
        self.assertEqual(self.says(), MISSING)
        self.assertEqual(self.says(api_key=[KEY]), MISSING)

    def test_no_key_is_said(self) -> None:
        """What a peer is told holds nothing of what it sent."""
        said = self.says(x_api_key=["almost " + KEY])
        assert said is not None
        self.assertNotIn(KEY, said[1])

    @given(
        st.dictionaries(st.sampled_from(("authorization", "x-api-key", "cookie")), VALUES), st.lists(VALUES, max_size=3)
    )
    def test_garbage(self, headers: dict[str, str], keys: list[str]) -> None:
        """Any text whatever in any of the places is refused with 401, and nothing else happens."""
        said = self.door(Request(headers, {"x-api-key": keys}))
        assert said is not None
        self.assertEqual(said[0], 401)


class PageTests(SynchronousTestCase):
    """websocket_page()."""

    def test_resource(self) -> None:
        """It is a resource, which takes the whole rest of a path."""
        page = websocket_page(WebSocketServerFactory(reactor=Clock()))
        self.assertTrue(verifyObject(IResource, page))
        self.assertTrue(page.isLeaf)
