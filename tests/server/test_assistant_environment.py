"""What a factory gets from a whole server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.plugin import IPlugin
from twisted.trial.unittest import TestCase
from twisted.web.static import Data
from zope.interface import implementer

from rapida_twisted import Assistant, AssistantEnvironment, CallContext, IAssistantFactory, RapidaMedia, Settings
from rapida_twisted.assistants import registry
from rapida_twisted.interfaces import EntryKind
from rapida_twisted.store.memory import MemoryStore
from tests.store.store_tests import NOW, context


@implementer(IPlugin, IAssistantFactory)
class Greedy:
    """Takes what there is."""

    name = "greedy"
    usage = "greedy  takes it"

    def configure(self, argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], Assistant]:
        """Keep it, and serve a page."""
        self.environment = environment
        environment.add_resource("greedy/hello", Data(b"hello", "text/plain"))
        return lambda context: Assistant()


class EnvironmentTests(TestCase):
    def setUp(self) -> None:
        self.greedy = Greedy()
        self.patch(registry, "getPlugins", lambda interface: [self.greedy])
        values = {
            "ASSISTANT": "*=greedy", "STORE__URL": "memory:", "STATE_DIR": str(Path(self.mktemp()).absolute()),
            "HTTP__PORT": "0", "AUDIOSOCKET__PORT": "0", "ADMIN__PORT": "0",
        }  # fmt: skip
        self.store = MemoryStore()
        self.service: Any = RapidaMedia(Settings.from_mapping(values), reactor=reactor, store=self.store)
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def test_resource(self) -> None:
        """A resource of an assistant is served below /v1/assistants, and fetched by the assistants' own client."""
        client = self.greedy.environment.http_client()
        self.addCleanup(client.close)
        url = f"http://127.0.0.1:{self.service.http_port}/v1/assistants/greedy"
        answer = await client.get(f"{url}/hello")
        self.assertEqual((answer.code, await treq.text_content(answer)), (200, "hello"))
        self.assertEqual((await client.get(f"{url}/other")).code, 404)

    async def test_journal(self) -> None:
        """What an assistant records is in its call's journal."""
        await self.store.add(context(created_at=NOW), 10)
        self.greedy.environment.record(context().context_id, EntryKind.TURN, "1.2 s")
        (entry,) = await self.store.entries(context().context_id)
        self.assertEqual((entry.kind, entry.text), (EntryKind.TURN, "1.2 s"))
