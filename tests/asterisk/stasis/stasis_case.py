"""A Stasis application at a scripted ARI, for the tests of calls in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.logger import LogLevel, globalLogPublisher

from rapida_twisted.asterisk.ari.client import AriChannel, channel_id_of
from rapida_twisted.asterisk.stasis import call as stasis_call
from rapida_twisted.asterisk.stasis import calls as stasis
from rapida_twisted.asterisk.stasis import orphans, transfer
from rapida_twisted.asterisk.stasis.calls import StasisCalls, StasisKit, StasisMedia
from rapida_twisted.context import CallContext, Direction, EndReason
from rapida_twisted.net.backoff import backoff
from rapida_twisted.net.bridge_states import BridgeStates
from rapida_twisted.store.memory import MemoryStore
from tests.asterisk.ari.test_client import AriTestCase
from tests.asterisk.scripted_ari import Answer, until

APP = "rapida-media-office"
NOW = 1_700_000_000.0
CALLER = "1795402101.4"
INTERNAL = Answer(500, {"message": "An internal error prevented this request from being handled"})

QUICK: list[tuple[Any, str, Any]] = [
    (stasis, "LEAVING_S", 0.1),
    (stasis, "LOOK_AGAIN_S", 0.3),
    (stasis, "CLOSE_TIMEOUT_S", 0.3),
    (stasis_call, "MEDIA_S", 0.3),
    (stasis_call, "HANGUP_EVENT_S", 0.02),
    (stasis_call, "retry_pause_s", backoff(0.02, 0.1)),
    (stasis_call, "REMOVING_S", 1.0),
    (transfer, "REDIRECT_S", 0.2),
    (transfer, "PAUSES_S", (0.02, 0.02)),
    (orphans, "EVENT_LAG_S", 0.1),
]


class StasisTestCase(AriTestCase):
    """An application at a scripted ARI that tells of what happens in it, and a store."""

    async def setUp(self) -> None:
        """Have them, and be quicker than in life."""
        await super().setUp()
        for module, name, value in QUICK:
            self.patch(module, name, value)
        self.ari.on_stasis = self.tell
        self.warnings: list[str] = []
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        self.store = MemoryStore()
        self.refusal: Exception | None = None
        self.registrations: list[tuple[str, AriChannel]] = []
        self.context_id = ""
        self.bridges = BridgeStates()
        self.calls = self.make_calls()

    def make_calls(self, host: str = "192.0.2.7") -> StasisCalls:
        """What is tested."""
        kit = StasisKit(
            ari=self.make_client(timeout_s=0.4), app=APP, store=self.store, media=StasisMedia(host, 9092),
            register=self.register, bridges=self.bridges, reactor=reactor,
        )  # fmt: skip
        calls = StasisCalls(kit)
        self.addCleanup(lambda: calls.close())
        return calls

    def log(self, event: Mapping[str, Any]) -> None:
        """Keep warnings."""
        if event["log_level"] is LogLevel.warn:
            self.warnings.append(str(event["log_format"]).format(**event))

    def tell(self, event: Mapping[str, Any]) -> None:
        """An event comes."""
        self.calls.event(event)

    async def register(self, assistant_id: str, channel: AriChannel) -> CallContext:
        """Register an inbound call, or refuse it."""
        self.registrations.append((assistant_id, channel))
        if self.refusal is not None:
            raise self.refusal
        return await self.add(assistant_id, Direction.INBOUND)

    async def add(self, assistant_id: str, direction: Direction) -> CallContext:
        """Keep a new context."""
        context = CallContext(
            context_id=str(uuid4()), assistant_id=assistant_id, direction=direction, created_at=NOW,
            expires_at=NOW + 30,
        )  # fmt: skip
        await self.store.add(context, 1000)
        self.context_id = context.context_id
        return context

    @property
    def media_id(self) -> str:
        """The id of the media's channel."""
        return f"rapida-media-{self.context_id}"

    # Steps

    def call_in(self, state: str = "Ring", caller: str = CALLER) -> None:
        """The dialplan sends a caller."""
        self.tell(self.ari.enter(caller, APP, "123456789", state=state))

    async def call_out(self) -> str:
        """A call that we placed is answered; gives its channel."""
        context = await self.add("123456789", Direction.OUTBOUND)
        channel_id = channel_id_of(context.context_id)
        self.tell(self.ari.enter(channel_id, APP, "outbound", context.context_id))
        return channel_id

    async def talk(self, caller: str = CALLER) -> None:
        """Wait until caller and media are in their bridge, and claim the call as the media's connection does."""
        await until(lambda: self.inside() == [caller, self.media_id])
        await self.store.claim(self.context_id, transport="audiosocket", peer="p", now=NOW)

    async def hang_up_here(self, next_dial: str = "", reason: EndReason = EndReason.ASSISTANT_HANGUP) -> None:
        """Our side ends the media."""
        if next_dial:
            await self.store.move_on(self.context_id, next_dial=next_dial)
        await self.store.finish(self.context_id, reason=reason, audio_in_s=1, audio_out_s=1, now=NOW)
        self.ari.destroy(self.media_id)

    def inside(self) -> list[str]:
        """The channels in the call's bridge."""
        bridge = self.ari.bridges.get(f"rapida-bridge-{self.context_id}", {"channels": []})
        return list(bridge["channels"])

    async def nothing_left(self) -> None:
        """Wait until all that was made for calls is gone, and those who made it."""
        await until(lambda: not self.ari.bridges and not self.media() and not self.calls.count)

    def media(self) -> list[str]:
        """The media's channels that there are."""
        return [name for name in self.ari.channels if name.startswith("rapida-media-")]

    # Claims

    def assert_went_on(self, next_dial: str = "", error: str = "", caller: str = CALLER) -> None:
        """The caller went on in the dialplan's next line, with these variables."""
        self.assertEqual(self.ari.channels[caller]["dialplan"]["app_name"], "Wait")
        found = [self.ari.variables[caller].get(name) for name in ("RAPIDA_NEXT", "RAPIDA_ERROR")]
        self.assertEqual(found, [next_dial, error])
        (asked,) = self.ari.requests("POST", f"channels/{caller}/continue")
        self.assertEqual(asked.query, {})

    def steps(self) -> list[str]:
        """What was asked of ARI, in short."""
        names = {self.context_id: "CTX", CALLER: "caller"}
        told = []
        for asked in self.ari.asked:
            text = f"{asked.method} {asked.path} {asked.query.get('channel', '')}".strip()
            for name, short in names.items():
                text = text.replace(name, short) if name else text
            told.append(text)
        return told
