"""Who is told of each change of a call's status: a small HTTP server that keeps what was POSTed."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.harness.ports import free_port
from benchmarks.harness.waiting import wait_until

__all__ = ["Post", "Receiver"]


@dataclass(frozen=True)
class Post:
    """One POST."""

    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """What it tells."""
        told: dict[str, Any] = json.loads(self.body)
        return told

    @property
    def record(self) -> dict[str, Any]:
        """What it tells of the call."""
        told: dict[str, Any] = self.event["call"]
        return told


class Receiver:
    """Keeps each notice once, as receivers shall; may be stopped, and started again at the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.posts: list[Post] = []
        """One for each notice, in the order in which they came first."""
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/calls"

    def start(self) -> Receiver:
        """Listen."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(Post({name.lower(): word for name, word in self.headers.items()}, body))
                self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, post: Post) -> None:
        """Keep a POST, unless its notice came before."""
        with self._lock:
            if post.event["id"] not in [other.event["id"] for other in self.posts]:
                self.posts.append(post)

    def posts_of(self, context_id: str) -> list[Post]:
        """Those of one call, in the order in which they came."""
        return [post for post in list(self.posts) if post.record["context_id"] == context_id]

    def statuses_of(self, context_id: str) -> list[str]:
        """The call statuses told of one call, in that order."""
        return [post.record["call_status"] for post in self.posts_of(context_id)]

    def wait_for(self, context_id: str, status: str, timeout_s: float = 5) -> list[str]:
        """Wait until a call's status was told; gives all that were told of it."""
        wait_until(
            f"the webhook is told that {context_id} is {status}",
            lambda: status in self.statuses_of(context_id),
            timeout_s,
        )
        return self.statuses_of(context_id)
