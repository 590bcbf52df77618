"""What the dialplan is told when a call's media is over."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.store.memory import MemoryStore
from rapida_twisted.web.next_hop import ContextPages
from tests.web.in_memory import KEY, NOW, InMemoryHttp


class _Websocket(Resource):
    """Stands where handshakes go."""

    isLeaf = True

    def render(self, request: object) -> bytes:
        """Tell that it was asked."""
        return b"websocket"


class NextTests(SynchronousTestCase):
    """GET /v1/talk/asterisk/ctx/{contextId}/next."""

    def setUp(self) -> None:
        """A server with one claimed call."""
        store = MemoryStore()
        pages = ContextPages(store, ApiKeys([KEY]), _Websocket())
        self.http = InMemoryHttp(store, extra={b"talk/asterisk/ctx": pages})
        self.call_id = self.http.request("/v1/talk/asterisk/call/1?from=1").body.decode()
        self.successResultOf(store.claim(self.call_id, transport="audiosocket", peer="p", now=NOW))
        self.store = store

    def test_hang_up(self) -> None:
        """A call that is simply over gets an empty answer, which is no error."""
        response = self.http.request(f"/v1/talk/asterisk/ctx/{self.call_id}/next")
        self.assertEqual((response.status, response.body, response.reason), (200, b"", ""))

    def test_transfer(self) -> None:
        """A call that was transferred gets the dial string and nothing else."""
        self.successResultOf(self.store.move_on(self.call_id, next_dial="PJSIP/200"))
        response = self.http.request(f"/v1/talk/asterisk/ctx/{self.call_id}/next")
        self.assertEqual((response.status, response.body), (200, b"PJSIP/200"))

    def test_unknown(self) -> None:
        """An unknown call is an error with an empty body, so that the dialplan hangs up."""
        response = self.http.request("/v1/talk/asterisk/ctx/nobody/next")
        self.assertEqual((response.status, response.body), (404, b""))

    def test_without_key(self) -> None:
        """Where a call goes is not for strangers."""
        self.successResultOf(self.store.move_on(self.call_id, next_dial="PJSIP/200"))
        response = self.http.request(f"/v1/talk/asterisk/ctx/{self.call_id}/next", key="")
        self.assertEqual((response.status, response.body), (401, b""))

    def test_other_paths(self) -> None:
        """Beside it are the WebSockets, by path and by query, and nothing else."""
        for path in ("ctx", f"ctx/{self.call_id}", f"ctx/{self.call_id}/", f"ctx?contextId={self.call_id}"):
            self.assertEqual(self.http.request(f"/v1/talk/asterisk/{path}").body, b"websocket", path)
        for path in (f"ctx/{self.call_id}/other", f"ctx/{self.call_id}/next/more"):
            self.assertEqual(self.http.request(f"/v1/talk/asterisk/{path}").status, 404, path)
