"""Two servers with one Redis, each the real program: what one knows of the other, and what is left when one of them, or
the Redis, goes away."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.server import Server
from benchmarks.harness.waiting import wait_until
from rapida_twisted.wire.audiosocket import AsteriskCodec, AudioFrame, HangupFrame, UuidFrame

slow = True  # starts processes: see tests/support/selection.py

FRAME = AudioFrame(b"\x00\x10" * 160)


class Phone:
    """A caller over AudioSocket, who talks all the time and hears the echo."""

    def __init__(self, port: int, context_id: str) -> None:
        self.heard = 0
        self.hung_up = self.over = False
        self._codec = AsteriskCodec()
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self._socket.sendall(self._codec.send(UuidFrame(uuid.UUID(context_id))))
        self._socket.settimeout(0.02)
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def _talk(self) -> None:
        try:
            while not self.over:
                self._socket.sendall(self._codec.send(FRAME))
                try:
                    data = self._socket.recv(65536)
                except TimeoutError:
                    continue
                for frame in self._codec.receive_data(data):
                    self.heard += isinstance(frame, AudioFrame)
                    self.hung_up |= isinstance(frame, HangupFrame)
                self.over |= not data
        except OSError:
            pass
        self.over = True

    def hang_up(self) -> None:
        """Hang up as Asterisk does."""
        self.over = True
        self._thread.join(5)
        self._socket.close()


class TwoServersTests(SynchronousTestCase):
    """A Redis, and servers that share it."""

    def setUp(self) -> None:
        """A Redis with little patience, and two servers."""
        directory = Path(self.mktemp()).absolute()
        self.redis = RedisServer(directory / "redis", keeps=True)
        self.redis.start()
        self.addCleanup(self.redis.kill)
        environment = {"STORE__URL": self.redis.url(more="?timeout=0.5")}
        self.one, self.two = [
            Server(directory / name, "*=echo", options=("--drain-s", "0"), environment=environment)
            for name in ("one", "two")
        ]
        for server in (self.one, self.two):
            server.start()
            self.addCleanup(server.stop)

    def call(self, register_at: Server, media_at: Server) -> tuple[str, Phone]:
        """A call that is registered at one server, and whose media goes to one."""
        context_id = register_at.register("1")
        phone = Phone(media_at.audiosocket_port, context_id)
        self.addCleanup(phone.hang_up)
        wait_until("it hears its echo", lambda: phone.heard > 5, 5)
        return context_id, phone

    def test_one_machine_or_two(self) -> None:
        """A call is registered here and comes up there; each server lists it, and hangs it up."""
        context_id, phone = self.call(self.one, self.two)
        other_id, other = self.call(self.two, self.two)
        records = [server.call(context_id) for server in (self.one, self.two)]
        self.assertEqual(records[0], records[1])
        self.assertEqual(records[0]["status"], "claimed")
        self.assertEqual({call["context_id"] for call in self.one.calls()}, {context_id, other_id})
        status, answer = self.one.request("DELETE", f"/v1/calls/{context_id}")
        self.assertEqual((status, answer), (202, {"contextId": context_id, "ordered": [records[0]["owner"]]}))
        record = self.one.ended_call(context_id)
        self.assertEqual((record["status"], record["reason"]), ("completed", "operator_hangup"))
        wait_until("the phone is hung up on", lambda: phone.hung_up, 2)
        self.assertFalse(other.over)
        self.assertEqual(self.one.hang_up(context_id), 404)

    def test_one_is_killed(self) -> None:
        """SIGKILL of one: the calls of the other go on, and its own are lost as soon as it is started again."""
        lost, lost_phone = self.call(self.one, self.two)
        kept, phone = self.call(self.two, self.one)
        self.two.kill()
        wait_until("the phone's connection ends", lambda: lost_phone.over, 2)
        self.assertEqual(self.one.call(lost)["status"], "claimed")
        self.two.start()
        record = self.one.ended_call(lost, 8)
        self.assertEqual((record["status"], record["reason"]), ("failed", "server_lost"))
        heard = phone.heard
        wait_until("the other goes on", lambda: phone.heard > heard + 10, 2)
        self.assertEqual(self.one.call(kept)["status"], "claimed")
        phone.hang_up()
        self.assertEqual(self.one.ended_call(kept)["reason"], "caller_hangup")

    def test_redis_is_away(self) -> None:
        """No answer from Redis: calls go on, new ones get 503 with an empty body, ends are told when it is back."""
        ends, phone = self.call(self.one, self.one)
        goes_on, talking = self.call(self.one, self.two)
        self.redis.hold_up()
        heard = talking.heard
        wait_until("its call goes on", lambda: talking.heard > heard + 50, 4)
        for _ in range(3):
            began = time.monotonic()
            self.assertEqual(self.one.request("GET", "/v1/talk/asterisk/call/1"), (503, None))
            self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(
            self.one.request("GET", "/readyz"), (503, {"ready": False, "store": "unavailable", "draining": False})
        )
        phone.hang_up()
        time.sleep(1)
        hung_up_at = time.time()
        self.redis.go_on()
        for server in (self.one, self.two):
            wait_until("it is ready again", server._is_ready, 10)
        record = self.one.ended_call(ends, 10)
        self.assertEqual((record["status"], record["reason"]), ("completed", "caller_hangup"))
        self.assertLess(record["ended_at"], hung_up_at)
        self.assertGreater(record["audio_in_s"], 0.0)
        self.assertEqual(self.two.call(goes_on)["status"], "claimed")
        self.assertEqual(len(self.one.register("1")), 36)

    def test_killed_while_redis_is_away(self) -> None:
        """What could not be told is on the disk: a server that is killed then tells it after its next start."""
        ends, phone = self.call(self.one, self.one)
        self.redis.kill()
        phone.hang_up()
        spool = self.one.directory / "state" / "spool"
        wait_until("its end is on the disk", lambda: any(path.stat().st_size for path in spool.iterdir()), 5)
        self.one.kill()
        self.redis.start()
        self.one.start()
        record = self.one.ended_call(ends, 10)
        self.assertEqual((record["status"], record["reason"]), ("completed", "caller_hangup"))
        self.assertNotIn("s3cret", self.one.log())
        self.assertNotIn("Traceback", self.one.log())
