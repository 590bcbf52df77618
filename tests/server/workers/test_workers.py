"""A server of several processes, each the real program: what one knows of the others, and what is left when one dies,
is replaced, or stops."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import FailTest, SynchronousTestCase

from benchmarks.harness.server import API_KEY, Server
from benchmarks.harness.waiting import wait_until
from tests.server.test_two_servers import Phone

slow = True  # starts processes: see tests/support/selection.py


class WorkersTestCase(SynchronousTestCase):
    """Two workers, and the one that speaks with ARI."""

    options: tuple[str, ...] = ("--workers", "2", "--drain-s", "30")

    def setUp(self) -> None:
        """Wait until all are there: the first that listens would get all calls."""
        self.directory = Path(self.mktemp()).absolute()
        self.server = Server(self.directory, "*=echo", options=self.options)
        self.addCleanup(self.server.stop, 40)
        self.server.start()
        self.wait_for_log("worker 1 is ready", "worker 2 is ready", "the ARI worker is ready")
        self.phones: list[Phone] = []

    def wait_for_log(self, *texts: str, count: int = 1, limit_s: float = 15) -> None:
        """Wait until its log has each of these so often."""
        for text in texts:
            wait_until(f"{text!r} in the log", lambda: self.server.log().count(text) >= count, limit_s)  # noqa: B023

    def call(self) -> tuple[str, Phone]:
        """A call that is up."""
        context_id = self.server.register("1")
        phone = Phone(self.server.audiosocket_port, context_id)
        self.addCleanup(phone.hang_up)
        wait_until("it hears its echo", lambda: phone.heard > 5, 5)
        return context_id, phone

    def worker_of(self, context_id: str) -> str:
        """Which worker has a call, such as ``worker 1``."""
        (line,) = [line for line in self.server.log().splitlines() if f"{context_id}: up over" in line]
        return line.partition("[")[2].partition(" rapida")[0]

    @property
    def pids(self) -> list[int]:
        """The workers' process ids: the ARI worker, worker 1, worker 2, as they were started."""
        process = self.server._process
        assert process is not None
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(word) for word in listed.split()]

    def signal(self, number: int) -> None:
        """Send the parent a signal."""
        assert self.server._process is not None
        os.kill(self.server._process.pid, number)

    def goes_on(self, phone: Phone) -> None:
        """A phone hears more."""
        heard = phone.heard
        wait_until("a call goes on", lambda: phone.heard > heard + 10, 3)


class WorkersTests(WorkersTestCase):
    """While they run."""

    def test_port_for_operators(self) -> None:
        """The workers share it as they share the HTTP port; a second server that wants it says what to set."""
        url = f"http://127.0.0.1:{self.server.admin_port}"
        for path in ("/readyz", "/metrics", "/v1/calls", "/v1/server"):
            request = urllib.request.Request(url + path, headers={"x-api-key": API_KEY})
            with urllib.request.urlopen(request, timeout=5) as answer:
                self.assertEqual(answer.status, 200)
        options = (*self.options, "--admin-port", str(self.server.admin_port))
        other = Server(self.directory / "other", "*=echo", options=options)
        error = self.assertRaises(FailTest, other.start)
        self.assertIn("Address already in use; set ADMIN__PORT to a free port, or to 0 for none", str(error))

    def test_any_of_them(self) -> None:
        """The calls are shared evenly; any process tells of all of them, and hangs up whichever is told."""
        calls = dict(self.call() for _ in range(6))
        workers = Counter(self.worker_of(context_id) for context_id in calls)
        self.assertEqual(set(workers), {"worker 1", "worker 2"})
        self.assertLessEqual(abs(workers["worker 1"] - workers["worker 2"]), 2, workers)
        for _ in range(4):
            self.assertEqual({call["context_id"] for call in self.server.calls()}, set(calls))
            figures = self.server.metrics()
            self.assertEqual(figures['rapida_calls{assistant="*",transport="audiosocket"}'], 6)
        for number, (context_id, phone) in enumerate(calls.items(), 1):
            self.assertEqual(self.server.hang_up(context_id), 202)
            wait_until("it is hung up", lambda: phone.hung_up, 3)  # noqa: B023
            self.assertEqual(self.server.ended_call(context_id)["reason"], "operator_hangup")
            others = list(calls.values())[number:]
            self.assertFalse(any(other.hung_up for other in others))

    def test_calls_are_placed_by_one(self) -> None:
        """Any process takes a request for an outbound call, and answers as the one that places calls does."""
        for _ in range(4):
            status, answer = self.server.place("1", "100")
            self.assertEqual((status, answer["retryable"]), (422, False))
            self.assertIn("the vault has no credential yet", answer["error"])
        request = urllib.request.Request(f"{self.server.url}/v1/talk/asterisk/outbound/1", method="POST", data=b"{}")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        self.assertEqual(caught.exception.code, 401)
        caught.exception.close()
        os.kill(self.pids[0], signal.SIGSTOP)
        self.addCleanup(os.kill, self.pids[0], signal.SIGKILL)
        self.goes_on(self.call()[1])

    def test_one_is_killed(self) -> None:
        """SIGKILL of a worker: the other's calls go on, its own are told as lost, another one takes its place."""
        calls = dict(self.call() for _ in range(6))
        killed = "worker 1"
        os.kill(self.pids[1], signal.SIGKILL)
        lost = {context_id for context_id in calls if self.worker_of(context_id) == killed}
        self.assertTrue(0 < len(lost) < 6)
        for context_id in lost:
            wait_until("its phone's connection ends", lambda: calls[context_id].over, 2)  # noqa: B023
        for context_id in set(calls) - lost:
            self.goes_on(calls[context_id])
        self.wait_for_log(f"{killed} is ready", count=2)
        self.assertIn(f"{killed} died after", self.server.log())
        for context_id in lost:
            record = self.server.ended_call(context_id, 12)
            self.assertEqual((record["status"], record["reason"]), ("failed", "server_lost"))
        figures = self.server.metrics()
        self.assertEqual(figures['rapida_calls{assistant="*",transport="audiosocket"}'], 6 - len(lost))
        new = [self.call() for _ in range(len(lost))]
        self.assertEqual({self.worker_of(context_id) for context_id, _ in new}, {killed})

    def test_reload(self) -> None:
        """SIGHUP: new processes take new calls; those that are up end with their own, whatever happens."""
        before, calls = self.pids, dict(self.call() for _ in range(4))
        self.signal(signal.SIGHUP)
        self.wait_for_log("replaced the workers", limit_s=60)
        wait_until("the old ARI worker is gone", lambda: before[0] not in self.pids, 5)
        self.assertEqual(len(self.pids), 5)
        _, new = self.call()
        for phone in [new, *calls.values()]:
            self.goes_on(phone)
        for context_id in calls:
            self.assertEqual(self.server.hang_up(context_id), 202)
            self.assertEqual(self.server.ended_call(context_id)["reason"], "operator_hangup")
        wait_until("the old workers are gone", lambda: len(self.pids) == 3, 8)
        self.assertFalse(set(before) & set(self.pids))
        self.goes_on(new)
        self.assertNotIn("died after", self.server.log())

    def test_kept_connection(self) -> None:
        """Whoever keeps a connection to a worker that is replaced, and has calls up, is answered, for the last time
        there."""
        calls = [self.call()[1] for _ in range(4)]
        kept = [http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=5) for _ in range(4)]
        for connection in kept:
            self.assertEqual(self.register_by(connection), (200, None))
        self.signal(signal.SIGHUP)
        self.wait_for_log("replaced the workers", limit_s=60)
        self.assertEqual([self.register_by(connection) for connection in kept], [(200, "close")] * 4)
        self.assertEqual([self.register_by(connection) for connection in kept], [(200, None)] * 4)
        for connection in kept:
            connection.close()
        for phone in calls:
            self.goes_on(phone)
            phone.hang_up()

    def register_by(self, connection: http.client.HTTPConnection) -> tuple[int, str | None]:
        """Register a call by a connection; gives the status, and what becomes of the connection."""
        connection.request("GET", "/v1/talk/asterisk/call/1", headers={"x-api-key": API_KEY})
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("Connection")

    def test_no_call_is_refused_while_reloading(self) -> None:
        """Whoever calls at any moment of a reload is served."""
        self.signal(signal.SIGHUP)
        count = 0
        while "replaced the workers" not in self.server.log():
            self.call()[1].hang_up()
            count += 1
        self.assertGreater(count, 3)

    def test_stop(self) -> None:
        """SIGTERM lets calls end; a second one ends them. Nothing is left."""
        environ = Path(f"/proc/{self.pids[1]}/environ").read_bytes().split(b"PROMETHEUS_MULTIPROC_DIR=")[1]
        folder = Path(environ.partition(b"\0")[0].decode()).parent
        self.assertTrue((folder / "ari").exists())
        ends, goes_on = self.call()[1], self.call()
        pids = self.pids
        self.server.terminate()
        time.sleep(0.5)
        self.assertFalse(ends.hung_up)
        self.goes_on(ends)
        self.server.terminate()
        self.server.wait(10)
        self.assertNotIn("died after", self.server.log())
        for phone in (ends, goes_on[1]):
            wait_until("it is hung up", lambda: phone.hung_up, 2)  # noqa: B023
        self.assertFalse(folder.exists())
        self.assertFalse([pid for pid in pids if Path(f"/proc/{pid}").exists()])
        self.assertIn("over, shutdown", self.server.log())

    def test_parent_is_killed(self) -> None:
        """SIGKILL of the parent: its ports are free at once, its workers' calls have the drain time, and then they are
        gone, too."""
        (context_id, phone), pids = self.call(), self.pids
        self.signal(signal.SIGKILL)
        self.goes_on(phone)
        self.server.reap()
        self.server.start()
        self.assertEqual(self.server.call(context_id)["status"], "claimed")
        self.assertEqual(self.server.hang_up(context_id), 202)
        wait_until("it is hung up", lambda: phone.hung_up, 5)
        wait_until("the old workers are gone", lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()], 10)

    def test_secrets(self) -> None:
        """The API key is in no process's title and not in the log."""
        self.call()
        titles = [Path(f"/proc/{pid}/cmdline").read_text() for pid in self.pids]
        self.assertFalse([title for title in titles if API_KEY in title])
        self.assertNotIn(API_KEY, self.server.log())


class LimitTests(WorkersTestCase):
    """Limits hold for all processes together."""

    options = ("--workers", "2", "--drain-s", "0", "--max-calls", "3")

    def test_calls(self) -> None:
        """With as many calls as there may be, another one is refused by whoever gets it, and one more fits when one is
        over."""
        calls = [self.call() for _ in range(3)]
        for _ in range(4):
            phone = Phone(self.server.audiosocket_port, self.server.register("1"))
            self.addCleanup(phone.hang_up)
            wait_until("it is refused", lambda: phone.over, 3)  # noqa: B023
            self.assertEqual(phone.heard, 0)
        calls[0][1].hang_up()
        self.server.ended_call(calls[0][0])
        self.call()


class StartTests(SynchronousTestCase):
    """What prevents a start is told by the parent, in one sentence."""

    def fails(self, *options: str) -> str:
        """What it says."""
        server = Server(Path(self.mktemp()).absolute(), options=("--workers", "2", *options))
        done = subprocess.run(server._command, capture_output=True, text=True, timeout=30, env=server._environment)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done.stderr.strip().splitlines()[-1]

    def test_settings(self) -> None:
        """Of the settings, the store, and the ports."""
        self.assertIn("known are bridge, echo", self.fails("--assistant", "*=nobody"))
        self.assertIn("STORE__URL can't be memory: with several workers", self.fails("--store-url", "memory:"))
        self.assertIn("it is a number of processes from 0", self.fails("--workers", "100"))
        self.assertIn("can share TCP ports only", self.fails("--http-endpoint", f"unix:{self.mktemp()}"))
        self.assertIn("HTTP can't listen", self.fails("--http-endpoint", "tcp:1:interface=192.0.2.1"))
        self.assertIn("can't be opened", self.fails("--store-url", "redis://127.0.0.1:1"))


class HungTests(WorkersTestCase):
    """Workers that do not respond for 3 s."""

    options = (*WorkersTestCase.options, "--workers-hung-s", "3")

    def test_one_is_stopped(self) -> None:
        """A stopped worker is killed and replaced, the ARI worker too; its calls are lost, the other's go on."""
        calls = dict(self.call() for _ in range(4))
        for name, pid in (("the ARI worker", self.pids[0]), ("worker 1", self.pids[1])):
            os.kill(pid, signal.SIGSTOP)
            self.wait_for_log(f"{name} has not responded for 3 s: killing it")
            self.wait_for_log(f"{name} is ready", count=2)
        for context_id, phone in calls.items():
            if self.worker_of(context_id) == "worker 1":
                self.assertEqual(self.server.ended_call(context_id, 12)["reason"], "server_lost")
            else:
                self.goes_on(phone)

    def test_all_are_stopped(self) -> None:
        """After the whole machine was asleep, nobody is killed."""
        phone = self.call()[1]
        self.assertIsNotNone(self.server._process)
        group = self.server._process.pid  # type: ignore[union-attr]
        os.killpg(group, signal.SIGSTOP)
        time.sleep(6)
        os.killpg(group, signal.SIGCONT)
        time.sleep(2)
        self.goes_on(phone)
        self.assertNotIn("killing it", self.server.log())
