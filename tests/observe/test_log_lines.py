"""Log lines name a credential, a URL or a call, never a Python object's repr: neither ours nor Twisted's."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from benchmarks.harness.ports import free_port
from rapida_twisted import RapidaMedia
from rapida_twisted.asterisk.ari.events import _WatchedEndpoint
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.web.proxy import ForwardedOutbound
from tests.support.settings import make_settings

PACKAGE = Path(__file__).parents[2] / "rapida_twisted"
LEVELS = {"debug", "info", "warn", "error", "critical", "failure", "emit"}


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call of a logger in the package, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in LEVELS and ast.unparse(node.func.value).endswith("log"):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


class SourceTests(SynchronousTestCase):
    """Our own lines."""

    def test_no_repr(self) -> None:
        """No format asks for a repr, and no value is one, or a container, which would be shown as one."""
        found = list(log_calls())
        self.assertGreater(len(found), 80)
        for place, call in found:
            for text in call.args:
                self.assertNotIn("!r", ast.unparse(text), place)
            for keyword in call.keywords:
                self.assertNotRegex(ast.unparse(keyword.value), r"^(repr|dict|list|tuple|set)\(|!r", place)


class EmittedTests(TestCase):
    """Lines of Twisted about objects of ours."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._keep)
        self.addCleanup(globalLogPublisher.removeObserver, self._keep)

    def _keep(self, event: LogEvent) -> None:
        self.lines.append(formatEvent(event))

    def check(self) -> None:
        """No line holds an object's address or its class."""
        for line in self.lines:
            self.assertNotRegex(line, r" at 0x|object at|_HTTP11ClientFactory|<rapida_twisted|<twisted")

    async def test_server(self) -> None:
        """A server behind a proxy that starts, answers and stops."""
        settings = make_settings(
            state_dir=Path(self.mktemp()).absolute(), store_url="memory:", http_endpoint="haproxy:tcp:0", drain_s=0,
            audiosocket_endpoint="haproxy:tcp:0", proxy_allow=(ip_network("127.0.0.0/8"),),
            admin_port=free_port(), rapida_api_key=("rpd-of-the-log-tests",),
        )  # fmt: skip
        service = RapidaMedia(settings, reactor=reactor)
        service.startService()
        answer = await treq.get(f"http://127.0.0.1:{service.admin_port}/readyz", persistent=False)
        await answer.content()
        await service.stopService()
        self.assertTrue(any("Admin starting on" in line for line in self.lines), self.lines)
        ours = [line for line in self.lines if "_HTTP11ClientFactory" not in line]  # The test's own client.
        self.lines[:] = ours
        self.check()

    def test_forwarded_calls(self) -> None:
        """The client of the process that places calls logs nothing of its factories."""
        pages = ForwardedOutbound(ApiKeys(("rpd-of-the-log-tests",)), "/nowhere/at/all", reactor)
        agent: Any = pages.getChildWithDefault(b"1", None)._agent  # type: ignore[arg-type, attr-defined]
        self.assertFalse(agent._pool._factory.noisy)

    def test_events_of_an_asterisk_that_is_down(self) -> None:
        """Twisted's line about the next attempt names the credential."""
        from twisted.application.internet import ClientService
        from twisted.internet.protocol import Factory, Protocol

        class Down:
            def connect(self, factory: Any) -> Deferred[Any]:
                return fail(ConnectionRefusedError())

        endpoint: Any = _WatchedEndpoint("ARI events of pbx", Down(), lambda failure: None)  # type: ignore[arg-type]
        service = ClientService(endpoint, Factory.forProtocol(Protocol), clock=Clock())
        service.startService()
        service.stopService()
        self.assertTrue(any("to connect ARI events of pbx in" in line for line in self.lines), self.lines)
        self.check()
