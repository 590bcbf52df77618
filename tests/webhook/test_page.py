"""The page of the webhook, and the receiver in it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import CallContext, record_of
from rapida_twisted.webhook.delivery import sign
from rapida_twisted.webhook.status import StatusWebhook
from tests.support.blocks import named_block
from tests.webhook.clocked import SECRET, URL, FakeTreq, NoticeStore
from tests.webhook.receivers import (
    LoopbackTestCase,
    page_code,
)


class PageTests(SynchronousTestCase):
    """The page's code, used as it stands there."""

    BODY = b'{"event":"call.status"}'

    def setUp(self) -> None:
        """Read it."""
        self.verify = page_code()["verify"]

    def test_good(self) -> None:
        """What we sign is believed."""
        self.verify(SECRET, sign(SECRET, int(time.time()), self.BODY), self.BODY)
        self.verify("sécret", sign("sécret", int(time.time()) - 290, b""), b"")

    def test_bad(self) -> None:
        """Another body, secret or time is refused; so is what is no signature. All by ValueError."""
        now = int(time.time())
        good = sign(SECRET, now, self.BODY)
        for secret, header, body in (
            (SECRET, good, self.BODY + b" "),
            ("another secret", good, self.BODY),
            (SECRET, good.replace(str(now), str(now + 1)), self.BODY),
            (SECRET, good[:-1] + ("0" if good[-1] != "0" else "1"), self.BODY),
            (SECRET, sign(SECRET, now - 310, self.BODY), self.BODY),
            (SECRET, sign(SECRET, now + 310, self.BODY), self.BODY),
            *(
                (SECRET, header, self.BODY)
                for header in ("", "t=1", "v1=", "v1", "t=,v1=ü", f"t={now},v1=", "=,=", ",")
            ),
        ):
            self.assertRaises(ValueError, self.verify, secret, header, body)

    def test_notice(self) -> None:
        """The notice that the page shows has the form of ours, and fields that a record has."""
        shown = json.loads(named_block("webhook.rst", "notice"))
        treq, store = FakeTreq(), NoticeStore()
        store.note("one")
        hook: Any = StatusWebhook(store, URL, SECRET, treq_client=treq, reactor=Clock())  # type: ignore[arg-type]
        hook.start()
        self.assertEqual(list(shown), list(treq.tries[0].event))
        self.assertEqual(shown["id"], f"{shown['call']['context_id']}-{shown['number']}")
        record = record_of(CallContext(context_id="one", assistant_id="1", created_at=0, expires_at=1))
        self.assertEqual(set(shown["call"]) - set(record), set())


class _Script(ProcessProtocol):
    """A program and what it prints."""

    def __init__(self) -> None:
        self.out = self.err = ""
        self.over: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """It prints."""
        self.out += data.decode()

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """It complains, or logs."""
        self.err += data.decode()

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """It is gone."""
        self.over.callback(None)


class PageReceiverTests(LoopbackTestCase):
    """The page's receiver, as a program of its own."""

    async def run_receiver(self, secret: str) -> tuple[_Script, str]:
        """Start it on a free port. The program and its address."""
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Protocol))
        port = listening.getHost().port
        await listening.stopListening()
        code = named_block("webhook.rst", "receiver")
        self.assertEqual(code.count('("127.0.0.1", 9000)'), 1)
        script = Path(self.mktemp())
        script.write_text(code.replace("9000", str(port)))
        program = _Script()
        process = reactor.spawnProcess(
            program, sys.executable, [sys.executable, str(script)], {"STATUS_WEBHOOK__SECRET": secret}
        )  # fmt: skip

        def end() -> Deferred[None]:
            process.signalProcess("KILL")
            return program.over

        self.addCleanup(end)
        return program, f"http://127.0.0.1:{port}/calls"

    async def test_prints_each_once(self) -> None:
        """It prints each change of a call."""
        program, url = await self.run_receiver(SECRET)
        await self.change("one", "initiated", "ringing", "failed")
        self.start_hook(url, pause_s=0.1)
        await self.until_empty()
        await self.until(lambda: program.out.count("\n") >= 3)
        self.assertEqual(program.out, "one initiated\none ringing\none failed\n")

    async def test_another_secret(self) -> None:
        """With another secret it refuses all, and prints nothing."""
        program, url = await self.run_receiver("another-secret-of-the-webhook")
        await self.change("one", "initiated")
        self.start_hook(url, pause_s=0.1)
        await self.until(lambda: "401" in program.err)
        self.assertEqual(program.out, "")
        self.assertEqual(len(await self.store.notices(10)), 1)
