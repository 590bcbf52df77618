"""A server of several processes that are replaced, or die, while a real Asterisk's calls are up."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from benchmarks.harness.server import API_KEY, Server
from benchmarks.harness.waiting import wait_until
from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan
from tests.live.case import ASSISTANT_ID
from tests.live.sounds import losses, noise
from tests.live.test_stasis import APP, StasisTestCase


class WorkersTests(StasisTestCase):
    """Two workers, and the one that speaks with ARI."""

    def start_workers(self, assistant: str, **settings: str) -> Server:
        """A server of them."""
        server = self.start(assistant, WORKERS="2", **settings)
        wait_until("the ARI worker is ready", lambda: "the ARI worker is ready" in server.log(), 5)
        return server

    def pids(self, server: Server) -> list[int]:
        """The workers' process ids, the ARI worker's first."""
        assert server._process is not None
        pid = server._process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def reload(self, server: Server) -> None:
        """Have all processes replaced."""
        assert server._process is not None
        count = server.log().count("replaced the workers")
        os.kill(server._process.pid, signal.SIGHUP)
        wait_until("they are", lambda: server.log().count("replaced the workers") > count, 20)

    def kill_ari(self, server: Server) -> None:
        """Kill the ARI worker, and wait for the next."""
        count = server.log().count(f"connected as {APP}")
        os.kill(self.pids(server)[0], signal.SIGKILL)
        wait_until("another one is there", lambda: server.log().count(f"connected as {APP}") > count, 10)

    def test_reload(self) -> None:
        """Not a sample of a long speech is lost when all processes are replaced while it is heard, twice; then we hang
        up, and the dialplan goes on."""
        server = self.start_workers("tests.live.assistants:LongSpeech", DRAIN_S="60")
        self.call("30@rapida-inbound-stasis", "recorder")
        context_id = self.only_call(server)["context_id"]
        for _ in range(2):
            self.reload(server)
        self.assertEqual(server.call(context_id)["status"], "claimed")
        self.asterisk.wait_for_log(r"Executing \[30@rapida-inbound-stasis:7\] Hangup", self.mark, timeout_s=40)
        (heard,) = self.recordings("call-heard")
        self.assertEqual(losses(noise(30.0), heard), [])
        self.assert_ended(server.ended_call(context_id), "assistant_hangup")
        self.assertNotIn("no media for channel", server.log())

    def test_ari_worker_dies(self) -> None:
        """Calls in Stasis go on, in and out; the next ARI worker hangs them up as any other."""
        server = self.start_workers("echo")
        self.call("100@rapida-inbound-stasis", "milliwatt")
        inbound_id = self.only_call(server)["context_id"]
        outbound_id = self.place(server, "400@party")["context_id"]
        for context_id in (inbound_id, outbound_id):
            wait_until("it is up", lambda: server.call(context_id)["status"] == "claimed", 5)  # noqa: B023
        self.kill_ari(server)
        time.sleep(3)
        for context_id in (inbound_id, outbound_id):
            self.assertEqual(server.call(context_id)["status"], "claimed")
            self.assertEqual(server.hang_up(context_id), 202)
            self.assert_ended(server.ended_call(context_id), "operator_hangup")
        self.asterisk.wait_for_log(r"Executing \[100@rapida-inbound-stasis:7\] Hangup", self.mark)
        record = server.wait_for_status(outbound_id, "completed", timeout_s=10)
        self.assertEqual(record["cause"], 16)
        self.asterisk.wait_until_idle()

    def test_calls_come_while_reloading(self) -> None:
        """Whoever calls into Stasis while the processes are replaced gets an assistant."""
        server = self.start_workers("echo", DRAIN_S="10")
        before = len(server.calls())
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGHUP)
        count = 0
        while "replaced the workers" not in server.log() or count < 20:
            self.call("100@rapida-inbound-stasis", "milliwatt", recording=f"call{count}")
            count += 1
            # Calls stay up: if they came fast for ever, a slow machine would never finish the reload.
            time.sleep(0.1 if count < 20 else 1.0)
            self.assertLess(count, 60, "the workers were not replaced while 60 calls came")
        wait_until("all are registered", lambda: len(server.calls()) == before + count, 10)
        wait_until("all are up", lambda: all(call["status"] == "claimed" for call in server.calls()), 10)
        self.assertNotIn("no media for channel", server.log())
        self.end_calls()
        wait_until("all are over", lambda: all(call["status"] == "completed" for call in server.calls()), 10)

    def test_dialplan(self) -> None:
        """A call of the dialplan's does not notice that the process which it was registered at is replaced."""
        server = self.start_workers("tests.live.assistants:LongSpeech", DRAIN_S="60")
        values = DialplanValues(API_KEY, server.url, "127.0.0.1", server.audiosocket_port, ASSISTANT_ID)
        self.load(audiosocket_dialplan(values))
        self.call("14@rapida-inbound", "recorder")
        self.reload(server)
        (heard,) = self.recordings("call-heard")
        self.assertEqual(losses(noise(14.0), heard), [])
        self.assert_ended(server.ended_call(self.only_call(server)["context_id"]), "assistant_hangup")
