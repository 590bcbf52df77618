"""Calls in our Stasis application, against a scripted ARI on the loopback interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, globalLogPublisher

from rapida_twisted.asterisk.ari.client import AriChannel, channel_id_of
from rapida_twisted.asterisk.stasis import call as stasis_call
from rapida_twisted.asterisk.stasis import calls as stasis
from rapida_twisted.asterisk.stasis import orphans as stasis_leftovers
from rapida_twisted.asterisk.stasis import transfer as stasis_onward
from rapida_twisted.asterisk.stasis.calls import StasisCalls, StasisMedia
from rapida_twisted.context import CallContext, Direction, EndReason
from rapida_twisted.errors import Draining, RapidaError, StoreUnavailable, TooManyCalls
from rapida_twisted.net.backoff import backoff
from rapida_twisted.net.bridge_states import BridgeStates
from rapida_twisted.store.memory import MemoryStore
from tests.asterisk.ari.test_client import AriTestCase
from tests.asterisk.scripted_ari import ALLOCATION_FAILED, HANGS, LOST, LOST_BUT_DONE, Answer, sleep, until

APP = "rapida-media-office"
NOW = 1_700_000_000.0
CALLER = "1795402101.4"
INTERNAL = Answer(500, {"message": "An internal error prevented this request from being handled"})

QUICK: list[tuple[Any, str, Any]] = [
    (stasis, "LEAVING_S", 0.1),
    (stasis, "LOOK_AGAIN_S", 0.3),
    (stasis, "GOODBYE_S", 0.3),
    (stasis_call, "MEDIA_S", 0.3),
    (stasis_call, "HANGUP_EVENT_S", 0.02),
    (stasis_call, "retry_pause_s", backoff(0.02, 0.1)),
    (stasis_call, "REMOVING_S", 1.0),
    (stasis_onward, "REDIRECT_S", 0.2),
    (stasis_onward, "PAUSES_S", (0.02, 0.02)),
    (stasis_leftovers, "NEWCOMERS_S", 0.1),
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
        calls = StasisCalls(
            self.make_client(timeout_s=0.4), APP, store=self.store, media=StasisMedia(host, 9092),
            register=self.register, bridges=self.bridges, reactor=reactor,
        )  # fmt: skip
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


class InboundTests(StasisTestCase):
    """Calls that the dialplan sends."""

    async def test_set_up(self) -> None:
        """It is registered, answered, and bridged with its media, of which Asterisk is told where it is."""
        self.call_in()
        await self.talk()
        ((assistant_id, channel),) = self.registrations
        self.assertEqual((assistant_id, channel.id, channel.caller), ("123456789", CALLER, "100"))
        steps = self.steps()
        self.assertEqual(
            sorted(steps[:3]),
            ["POST bridges/rapida-bridge-CTX", "POST channels/caller/answer", "POST channels/caller/variable"],
        )
        self.assertEqual(
            steps[3:],
            [
                "POST bridges/rapida-bridge-CTX/addChannel caller",
                "POST channels/externalMedia",
                "POST bridges/rapida-bridge-CTX/addChannel rapida-media-CTX",
            ],
        )
        self.assertEqual(self.ari.variables[CALLER]["RAPIDA_CONTEXT_ID"], self.context_id)
        (asked,) = self.ari.requests("POST", "channels/externalMedia")
        self.assertEqual(
            dict(asked.query),
            {
                "app": APP, "channelId": self.media_id, "external_host": "192.0.2.7:9092", "data": self.context_id,
                "encapsulation": "audiosocket", "transport": "tcp", "connection_type": "client", "format": "slin",
            },
        )  # fmt: skip
        self.assertEqual(self.ari.bridges[f"rapida-bridge-{self.context_id}"]["name"], APP)
        self.assertEqual(self.calls.count, 1)

    async def test_answered_before(self) -> None:
        """A channel that the dialplan has answered is not answered again."""
        self.call_in(state="Up")
        await self.talk()
        self.assertEqual(self.ari.requests("POST", f"channels/{CALLER}/answer"), [])

    async def test_bridge_states(self) -> None:
        """A call counts as not bridged from before its media connects until the bridge has the media."""
        joining = Answer(does=True, after_s=0.1)
        self.ari.on_asked = lambda asked: told.append((asked.path.split("/")[-1], self.bridges.get(self.context_id)))
        told: list[tuple[str, bool | None]] = []
        self.call_in(state="Up")
        await until(lambda: self.context_id)
        self.ari.script("POST", f"bridges/rapida-bridge-{self.context_id}/addChannel", Answer(does=True), joining)
        await self.talk()
        self.assertIs(self.bridges.get(self.context_id), False)
        await until(lambda: self.bridges.get(self.context_id))
        self.assertEqual(told[-3:], [("addChannel", None), ("externalMedia", False), ("addChannel", False)])

    async def test_ipv6(self) -> None:
        """An IPv6 address is written as Asterisk reads it."""
        self.calls = self.make_calls("2001:db8::7")
        self.call_in()
        await self.talk()
        (asked,) = self.ari.requests("POST", "channels/externalMedia")
        self.assertEqual(asked.query["external_host"], "[2001:db8::7]:9092")

    async def test_we_hang_up(self) -> None:
        """When our side ends the media, the dialplan goes on, and nothing is left."""
        self.call_in()
        await self.talk()
        await self.hang_up_here()
        await self.nothing_left()
        self.assert_went_on()
        self.assertEqual(self.warnings, [])

    async def test_transfer(self) -> None:
        """A transferred call goes on with where to in RAPIDA_NEXT."""
        self.call_in()
        await self.talk()
        await self.hang_up_here("PJSIP/200@trunk", EndReason.TRANSFERRED)
        await self.nothing_left()
        self.assert_went_on("PJSIP/200@trunk")

    async def test_caller_hangs_up(self) -> None:
        """When the caller is gone, the media's channel is hung up and the bridge removed; nobody is sent on."""
        for event in ("ChannelHangupRequest", "StasisEnd", "ChannelDestroyed"):
            self.ari.asked.clear()
            self.call_in()
            await self.talk()
            self.ari.on_stasis = lambda event: None
            self.ari.destroy(CALLER)
            self.ari.on_stasis = self.tell
            self.tell({"type": event, "channel": {"id": CALLER}})
            await self.nothing_left()
            self.assertIn((self.media_id, "normal"), self.ari.hung_up)
            self.assertEqual(self.ari.requests("POST", f"channels/{CALLER}/continue"), [])

    async def test_not_registered(self) -> None:
        """A call that is not taken goes on with RAPIDA_ERROR, unanswered: the dialplan can still say busy."""
        for refusal in (Draining("stopping"), TooManyCalls("full"), StoreUnavailable("down"), RapidaError("no such")):
            self.ari.asked.clear()
            self.warnings.clear()
            self.refusal = refusal
            self.call_in()
            await self.nothing_left()
            self.assert_went_on("", "1")
            self.assertEqual(self.ari.channels[CALLER]["state"], "Ring")
            (warning,) = self.warnings
            self.assertIn(str(refusal), warning)
            self.assertIn(CALLER, warning)

    async def test_broken_registration(self) -> None:
        """An error of our own leaves nobody in silence, either."""
        self.refusal = ZeroDivisionError("oops")
        self.call_in()
        await self.nothing_left()
        self.assert_went_on("", "1")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_media_that_nobody_took(self) -> None:
        """Media that ends without its call having been claimed was none."""
        self.call_in()
        await until(lambda: self.inside() == [CALLER, self.media_id])
        self.ari.destroy(self.media_id)
        await self.nothing_left()
        self.assert_went_on("", "1")

    async def test_store_is_down_at_the_end(self) -> None:
        """When nobody knows where the call goes next, it takes the dialplan's error branch."""
        self.call_in()
        await self.talk()
        self.patch(self.store, "get", lambda context_id: Deferred.fromCoroutine(_fail(StoreUnavailable("disk full"))))
        self.ari.destroy(self.media_id)
        await self.nothing_left()
        self.assert_went_on("", "1")
        self.assertIn("disk full", self.warnings[0])
        self.assertIn(self.context_id, self.warnings[0])

    async def test_again(self) -> None:
        """A channel that the dialplan sends again, while the rest of its first call is still being removed, is a new
        call."""
        self.call_in()
        await self.talk()
        first = self.context_id
        self.ari.script("DELETE", f"bridges/rapida-bridge-{first}", Answer(does=True, after_s=0.3))
        await self.hang_up_here()
        await until(lambda: not self.ari.is_in_application(CALLER))
        self.call_in()
        await until(lambda: self.context_id != first)
        await self.talk()
        self.assertEqual(self.calls.count, 2)
        await until(lambda: self.calls.count == 1)
        self.assertEqual(self.inside(), [CALLER, self.media_id])

    async def test_meaningless(self) -> None:
        """A channel that came with other arguments is sent back, and the log says what to write."""
        for args in ([], [""], ["1", "2"], ["outbound", "x"], ["1", "2", "3"]):
            self.ari.asked.clear()
            self.warnings.clear()
            self.tell(self.ari.enter(CALLER, APP, *args))
            await self.nothing_left()
            self.assert_went_on("", "1")
            self.assertIn(f"write Stasis({APP},ASSISTANT_ID)", self.warnings[0])
        self.assertEqual(self.registrations, [])


class OutboundTests(StasisTestCase):
    """Calls that we placed."""

    async def test_set_up(self) -> None:
        """It is bridged with its media, under the context that it has."""
        channel_id = await self.call_out()
        await self.talk(channel_id)
        self.assertEqual(self.registrations, [])
        self.assertEqual(self.ari.requests("POST", f"channels/{channel_id}/"), [])

    async def test_we_hang_up(self) -> None:
        """When our side ends the media, it is hung up."""
        channel_id = await self.call_out()
        await self.talk(channel_id)
        await self.hang_up_here()
        await self.nothing_left()
        self.assertEqual(self.ari.hung_up, [(channel_id, "normal")])

    async def test_transfer_to_the_dialplan(self) -> None:
        """``Local/EXTEN@CONTEXT`` is where it goes on by itself."""
        for dial in ("Local/300@party", "local/300@party/n"):
            channel_id = await self.call_out()
            await self.talk(channel_id)
            await self.hang_up_here(dial, EndReason.TRANSFERRED)
            await self.nothing_left()
            (asked,) = self.ari.requests("POST", f"channels/{channel_id}/continue")
            self.assertEqual(dict(asked.query), {"context": "party", "extension": "300", "priority": "1"})
            self.assertEqual(self.ari.hung_up, [])

    async def transfer(self, dial: str) -> str:
        """Transfer a call that we placed; gives its channel."""
        channel_id = await self.call_out()
        await self.talk(channel_id)
        await self.hang_up_here(dial, EndReason.TRANSFERRED)
        return channel_id

    async def test_transfer_elsewhere(self) -> None:
        """With any other dial string its far end is told to call there, out of the bridge; then it is left alone."""
        for dial in ("PJSIP/sip:200@192.0.2.1", "PJSIP/phone", "IAX2/peer/200"):
            channel_id = await self.transfer(dial)
            await until(lambda channel_id=channel_id: self.ari.requests("POST", f"channels/{channel_id}/redirect"))
            self.assertEqual(self.ari.bridges, {})
            self.assertEqual(self.ari.asked[-1].query["endpoint"], dial)
            self.ari.destroy(channel_id)
            await self.nothing_left()
            self.assertEqual((self.ari.hung_up, self.warnings), ([], []))

    async def test_far_end_does_not_go(self) -> None:
        """A far end that stays is hung up after a time, and the log says why."""
        channel_id = await self.transfer("PJSIP/phone")
        await self.nothing_left()
        self.assertEqual(self.ari.hung_up, [(channel_id, "normal")])
        (warning,) = self.warnings
        self.assertIn(self.context_id, warning)
        self.assertIn("the far end is still here", warning)

    async def test_transfer_over_a_trunk(self) -> None:
        """A number at one of our trunks means nothing to the far end: it is not told that, and hung up at once."""
        channel_id = await self.transfer("PJSIP/200@trunk")
        await self.nothing_left()
        self.assertEqual(self.ari.hung_up, [(channel_id, "normal")])
        self.assertEqual(self.ari.requests("POST", f"channels/{channel_id}/"), [])
        self.assertIn("knows nothing of our trunks", self.warnings[0])

    async def test_transfer_refused(self) -> None:
        """One that can't be told to go there is hung up, and the log says what always works."""
        channel_id = await self.call_out()
        refused = Answer(422, {"message": "Endpoint technology 'IAX2' does not match channel technology 'PJSIP'"})
        self.ari.script("POST", f"channels/{channel_id}/redirect", refused)
        await self.talk(channel_id)
        await self.hang_up_here("IAX2/x/200", EndReason.TRANSFERRED)
        await self.nothing_left()
        self.assertEqual(self.ari.hung_up, [(channel_id, "normal")])
        self.assertIn("does not match channel technology", self.warnings[0])
        self.assertIn("Local/EXTEN@CONTEXT always can be", self.warnings[0])

    async def test_no_media(self) -> None:
        """One that gets no media is hung up."""
        self.ari.script("POST", "channels/externalMedia", INTERNAL)
        channel_id = await self.call_out()
        await self.nothing_left()
        self.assertEqual(self.ari.hung_up, [(channel_id, "normal")])
        (warning,) = self.warnings
        self.assertIn(self.context_id, warning)
        self.assertIn("does 192.0.2.7:9092 lead to us?", warning)
        self.assertIs(self.bridges.get(self.context_id), True)


class FailureTests(StasisTestCase):
    """Each step fails, each event comes at the wrong time or twice: nothing is left, and other calls do not notice."""

    async def at(self, step: str, answer: Answer) -> None:
        """Answer a step of the next call so. The steps' ids are not known before."""
        done = []
        original: Callable[[Any], None] = type(self.ari).answer.__get__(self.ari)

        def answered(request: Any) -> None:
            path = request.uri.decode().partition("?")[0].removeprefix("/ari/")
            if not done and _step(request.method.decode(), path, request.uri.decode()) == step:
                done.append(path)
                self.ari.script(request.method.decode(), path, answer)
            original(request)

        self.patch(self.ari, "answer", answered)

    STEPS = ("answer", "bridge", "variable", "add caller", "media", "add media")

    async def test_refused(self) -> None:
        """Whatever step is refused, or its answer lost: the caller goes on with RAPIDA_ERROR."""
        self.patch(stasis_call, "REMOVING_S", 0.2)
        for step in self.STEPS:
            for answer in (INTERNAL, ALLOCATION_FAILED, Answer(200, b"?"), LOST, LOST_BUT_DONE, HANGS):
                self.ari.asked.clear()
                self.warnings.clear()
                await self.at(step, answer)
                self.call_in()
                await until(lambda: not self.ari.is_in_application(CALLER))
                await self.nothing_left()
                self.assert_went_on("", "1")
                (warning,) = self.warnings
                self.assertIn(self.context_id, warning, (step, answer))

    async def test_other_calls(self) -> None:
        """A call that is up does not notice."""
        self.call_in(caller="other")
        await self.talk("other")
        other = self.context_id
        await self.at("media", INTERNAL)
        self.call_in()
        await until(lambda: self.calls.count == 1)
        self.assert_went_on("", "1")
        self.assertEqual(list(self.ari.bridges), [f"rapida-bridge-{other}"])
        self.assertEqual(self.media(), [f"rapida-media-{other}"])

    async def test_done_later(self) -> None:
        """What ARI does only after it was given up is removed, too."""
        for step in ("bridge", "media"):
            self.ari.asked.clear()
            await self.at(step, Answer(hangs=True, does_after_s=0.7))
            self.call_in()
            await until(lambda: not self.ari.is_in_application(CALLER))
            await sleep(0.3)
            await self.nothing_left()
            self.assert_went_on("", "1")

    async def test_caller_hangs_up_in_the_middle(self) -> None:
        """Whatever is being asked when the caller hangs up: nothing is left, and nothing is warned of."""
        for step in self.STEPS:
            for after_s in (0.05, 0.0):
                self.warnings.clear()
                self.ari.asked.clear()
                await self.at(step, Answer(does=True, after_s=after_s))
                self.call_in()
                await until(lambda step=step: step in [_step(a.method, a.path, a.uri) for a in self.ari.asked])
                self.ari.destroy(CALLER)
                await self.nothing_left()
                self.assertEqual(self.ari.requests("POST", f"channels/{CALLER}/continue"), [])
                self.assertEqual(self.warnings, [], step)

    async def test_event_of_the_hangup_comes_late(self) -> None:
        """A step that was refused since the caller has hung up is no warning."""
        self.ari.on_stasis = lambda event: None
        await self.at("answer", Answer(does=True, after_s=0.05))
        self.call_in()
        await until(lambda: len(self.ari.asked) == 3)
        del self.ari.channels[CALLER]
        await until(lambda: len(self.ari.asked) == 4)
        await sleep(0.005)
        self.tell({"type": "ChannelDestroyed", "channel": {"id": CALLER}})
        await self.nothing_left()
        self.assertEqual(self.warnings, [])

    async def test_twice(self) -> None:
        """Each event twice: each step once."""
        self.ari.on_stasis = lambda event: (self.calls.event(event), self.calls.event(event), None)[2]
        event = self.ari.enter(CALLER, APP, "123456789")
        self.tell(event)
        self.tell(event)
        await self.talk()
        await self.hang_up_here()
        await self.nothing_left()
        self.assert_went_on()
        self.assertEqual(len(self.registrations), 1)
        self.assertEqual(len(self.ari.requests("POST", "channels/externalMedia")), 1)
        self.assertEqual(len(self.ari.requests("DELETE", "bridges")), 1)

    async def test_media_ends_before_it_came(self) -> None:
        """Media whose end is told without its coming, or before, ends the call."""
        for late in (False, True):
            self.ari.asked.clear()
            self.ari.on_stasis = lambda event: None
            self.call_in()
            await until(lambda: self.media())
            self.ari.destroy(self.media_id)
            self.tell({"type": "ChannelDestroyed", "channel": {"id": self.media_id}})
            if late:
                start = self.ari.enter(self.media_id, APP, self.context_id)
                self.ari.destroy(self.media_id)
                self.tell(start)
            await self.nothing_left()
            self.assert_went_on("", "1")

    async def test_media_does_not_come(self) -> None:
        """Media of which nobody hears anything is given up after a time, and removed."""
        self.ari.on_stasis = lambda event: None
        self.call_in()
        await until(lambda: not self.ari.is_in_application(CALLER))
        await self.nothing_left()
        self.assert_went_on("", "1")
        self.assertIn("did not come into the application", self.warnings[0])

    async def test_end_before_the_beginning(self) -> None:
        """A caller whose end is told before its coming leaves nothing."""
        event = self.ari.enter(CALLER, APP, "123456789")
        self.ari.destroy(CALLER)
        self.tell(event)
        await self.nothing_left()
        await until(lambda: self.registrations)
        await self.nothing_left()
        self.assertEqual(self.ari.channels, {})

    async def test_late_media(self) -> None:
        """A media's channel whose call is over is hung up."""
        self.tell(self.ari.enter("rapida-media-x", APP, "x"))
        await until(lambda: self.ari.hung_up == [("rapida-media-x", "normal")])

    async def test_not_ours(self) -> None:
        """Events of other applications, of other channels and without sense are ignored."""
        for event in (
            self.ari.enter("1", "other", "123456789"),
            {"type": "StasisStart", "application": APP, "args": [], "channel": {"id": "2"}},
            {"type": "StasisStart", "application": APP, "args": ["1"]},
            {"type": "StasisStart", "application": APP, "channel": 3},
            {"type": "StasisEnd", "channel": {"id": "9"}},
            {"type": "ChannelDestroyed", "channel": {"id": ["x"]}},
            {"type": "Dial", "peer": {"id": "1"}},
            {},
        ):
            self.tell(event)
        await sleep(0.05)
        self.assertEqual((self.ari.asked, self.calls.count, self.registrations), ([], 0, []))

    async def test_moving_on_is_tried_again(self) -> None:
        """ARI that fails for a moment does not strand a caller."""
        self.call_in()
        await self.talk()
        self.ari.script("POST", f"channels/{CALLER}/continue", LOST, Answer(503))
        await self.hang_up_here("PJSIP/200")
        await self.nothing_left()
        self.assertEqual(self.ari.variables[CALLER]["RAPIDA_NEXT"], "PJSIP/200")
        self.assertFalse(self.ari.is_in_application(CALLER))
        self.assertEqual(self.warnings, [])

    async def test_moving_on_fails(self) -> None:
        """ARI that fails for longer is warned of, and the caller is sent on later."""
        self.call_in()
        await self.talk()
        self.ari.script("POST", f"channels/{CALLER}/continue", *[Answer(503)] * 3)
        await self.hang_up_here("PJSIP/200")
        await until(lambda: self.warnings)
        self.assertIn(self.context_id, self.warnings[0])
        self.assertTrue(self.ari.is_in_application(CALLER))
        await until(lambda: not self.ari.is_in_application(CALLER))
        await self.nothing_left()
        self.assertEqual(self.ari.variables[CALLER]["RAPIDA_NEXT"], "PJSIP/200")

    async def test_removing_fails(self) -> None:
        """What can't be removed for long is removed later."""
        self.call_in()
        await self.talk()
        self.ari.script("DELETE", f"bridges/rapida-bridge-{self.context_id}", *[Answer(503)] * 8)
        self.patch(stasis_call, "REMOVING_S", 0.1)
        await self.hang_up_here()
        await until(lambda: self.warnings)
        self.assertIn("could not be removed", self.warnings[0])
        await self.nothing_left()

    async def test_somebody_else_moved_it_on(self) -> None:
        """A caller who is not in the application any more is left alone."""
        self.call_in()
        await self.talk()
        not_here = Answer(409, {"message": "Channel not in Stasis application"})
        self.ari.script("POST", f"channels/{CALLER}/continue", not_here)
        await self.hang_up_here()
        await self.nothing_left()
        self.assertEqual(self.warnings, [])


class LeftoverTests(StasisTestCase):
    """What nobody told us."""

    async def test_of_an_earlier_process(self) -> None:
        """Media and bridges are removed, callers sent on, an outbound call hung up; other applications' are not."""
        context = await self.add("1", Direction.OUTBOUND)
        await self.store.claim(context.context_id, transport="audiosocket", peer="p", now=NOW)
        mine = channel_id_of(context.context_id)
        self.ari.enter(mine, APP, "outbound", context.context_id)
        self.ari.enter(CALLER, APP, "123456789")
        self.ari.variables[CALLER] = {"RAPIDA_CONTEXT_ID": str(uuid4())}
        for app, name in ((APP, "1"), ("other", "2")):
            self.ari.enter(f"rapida-media-{name}", app, name)
            self.ari.bridges[f"rapida-bridge-{name}"] = {"id": f"rapida-bridge-{name}", "name": app, "channels": []}
        self.ari.enter("theirs", "other", "123456789")
        self.ari.enter("snooped", f"{APP}2", "123456789")
        self.calls.connected(False)
        await until(lambda: not self.ari.is_in_application(CALLER) and mine not in self.ari.channels)
        await until(lambda: not self.calls.count)
        self.assert_went_on("", "1")
        self.assertEqual(sorted(self.ari.channels), sorted([CALLER, "rapida-media-2", "snooped", "theirs"]))
        self.assertEqual(list(self.ari.bridges), ["rapida-bridge-2"])
        self.assertTrue(self.ari.is_in_application("theirs") and self.ari.is_in_application("snooped"))
        self.assertEqual(self.registrations, [])

    async def test_transferred_by_an_earlier_process(self) -> None:
        """A caller who was to be transferred when the server ended is."""
        context = await self.add("1", Direction.INBOUND)
        await self.store.claim(context.context_id, transport="audiosocket", peer="p", now=NOW)
        await self.store.move_on(context.context_id, next_dial="PJSIP/200")
        self.ari.enter(CALLER, APP, "1")
        self.ari.variables[CALLER] = {"RAPIDA_CONTEXT_ID": context.context_id}
        self.calls.connected(False)
        await until(lambda: not self.ari.is_in_application(CALLER))
        self.assert_went_on("PJSIP/200")

    async def another_looks_after_it(self) -> None:
        """Another process connects to the application, and this one lets go."""
        gone, self.calls = self.calls, self.make_calls()
        await gone.close(leave=True)
        self.calls.connected(False)

    async def test_handed_over(self) -> None:
        """A call that is up goes on, and is looked after: it ends as any other."""
        self.call_in()
        await self.talk()
        asked = len(self.ari.asked)
        await self.another_looks_after_it()
        await until(lambda: self.calls.count)
        await sleep(0.3)
        self.assertEqual(self.inside(), [CALLER, self.media_id])
        self.assertEqual((self.ari.hung_up, len(self.registrations)), ([], 1))
        self.assertNotIn("POST channels/externalMedia", self.steps()[asked:])
        await self.hang_up_here("PJSIP/200", EndReason.TRANSFERRED)
        await self.nothing_left()
        self.assert_went_on("PJSIP/200")

    async def test_handed_over_outbound(self) -> None:
        """So does a call that we placed; it is hung up in the end."""
        channel_id = await self.call_out()
        await self.talk(channel_id)
        await self.another_looks_after_it()
        await until(lambda: self.calls.count)
        await self.hang_up_here()
        await self.nothing_left()
        self.assertNotIn(channel_id, self.ari.channels)

    async def test_handed_over_while_being_set_up(self) -> None:
        """A call whose media is only coming is set up to its end, whatever of it there is."""
        steps = [("channels/17/answer", 0.0), ("channels/externalMedia", 0.0), ("channels/externalMedia", 0.1)]
        for slow, after_s in steps:
            self.ari.script("POST", slow, Answer(does=True, after_s=after_s))
            self.call_in(caller="17")
            await until(lambda: self.ari.requests("POST", slow))  # noqa: B023
            await self.another_looks_after_it()
            await self.talk("17")
            self.assertEqual(self.media(), [self.media_id])
            await self.hang_up_here()
            await self.nothing_left()
            self.ari.asked.clear()
        self.assertEqual(self.warnings, [])

    async def test_media_came_while_looking(self) -> None:
        """Media that comes before the call is known is its own; other media is removed."""
        self.ari.script("POST", "channels/externalMedia", Answer(does=True, after_s=0.1))
        self.call_in()
        await until(lambda: self.ari.requests("POST", "channels/externalMedia"))
        context_id = self.context_id
        self.patch(stasis_leftovers, "NEWCOMERS_S", 0.3)
        await self.another_looks_after_it()
        await until(lambda: self.ari.requests("GET", "bridges"))
        for name in (context_id, "0"):
            self.tell(self.ari.enter(f"rapida-media-{name}", APP, name))
        await self.talk()
        await until(lambda: self.media() == [self.media_id])

    async def test_came_in_a_gap(self) -> None:
        """Calls whose coming nobody told begin late."""
        context = await self.add("1", Direction.OUTBOUND)
        mine = channel_id_of(context.context_id)
        self.ari.enter(mine, APP, "outbound", context.context_id)
        self.calls.connected(True)
        await self.talk(mine)
        self.ari.enter(CALLER, APP, "123456789", state="Ring")
        self.calls.connected(True)
        await until(lambda: self.registrations)
        await self.talk()
        self.assertEqual(self.registrations[0][0], "123456789")

    async def test_up_during_a_gap(self) -> None:
        """A call that is up stays up; what became of others in a gap is seen."""
        self.call_in(caller="stays")
        await self.talk("stays")
        stays = self.context_id
        self.call_in()
        await self.talk()
        await self.store.finish(
            self.context_id, reason=EndReason.ASSISTANT_HANGUP, audio_in_s=1, audio_out_s=1, now=NOW
        )
        ended = self.media_id
        self.call_in(caller="hangs up")
        await self.talk("hangs up")
        self.ari.on_stasis = lambda event: None
        self.ari.destroy(ended)
        self.ari.destroy("hangs up")
        self.ari.on_stasis = self.tell
        self.calls.connected(True)
        await until(lambda: self.calls.count == 1)
        await sleep(0.3)
        self.assert_went_on()
        self.assertEqual(list(self.ari.bridges), [f"rapida-bridge-{stays}"])
        self.assertEqual(self.media(), [f"rapida-media-{stays}"])
        self.assertEqual(self.calls.count, 1)

    async def test_media_came_in_a_gap(self) -> None:
        """Media whose coming nobody told is bridged."""
        self.patch(stasis_call, "MEDIA_S", 5)
        self.ari.on_stasis = lambda event: None
        self.call_in()
        await until(lambda: self.media())
        self.ari.on_stasis = self.tell
        self.calls.connected(True)
        await self.talk()

    async def test_being_set_up(self) -> None:
        """A call that comes, and one that ends, while Asterisk is being asked is not taken for one left behind."""
        ended = await self.call_out()
        await self.talk(ended)
        self.ari.script("GET", "bridges", Answer(does=True, after_s=0.1))
        self.calls.connected(True)
        await until(lambda: self.ari.requests("GET", "bridges"))
        await self.hang_up_here("Local/300@party", EndReason.TRANSFERRED)
        self.call_in()
        await self.talk()
        await sleep(0.3)
        self.assertEqual(self.ari.hung_up, [])
        self.assertEqual(self.inside(), [CALLER, self.media_id])

    async def test_asterisk_can_not_be_asked(self) -> None:
        """Then it is asked again later."""
        self.ari.enter("rapida-media-1", APP, "1")
        self.ari.script("GET", "channels", Answer(503))
        self.calls.connected(False)
        await until(lambda: self.warnings)
        await self.nothing_left()


class ClosingTests(StasisTestCase):
    """The end of all."""

    async def test_calls_up(self) -> None:
        """Calls that are up go on in the dialplan, or are hung up; their media ends."""
        self.call_in()
        await self.talk()
        channel_id = await self.call_out()
        await self.talk(channel_id)
        await self.calls.close()
        self.assertEqual((self.media(), self.ari.bridges, self.calls.count), ([], {}, 0))
        self.assert_went_on()
        self.assertNotIn(channel_id, self.ari.channels)

    async def test_in_the_middle(self) -> None:
        """A call that is being set up is ended."""
        self.ari.script("POST", "channels/externalMedia", Answer(does=True, after_s=0.1))
        self.call_in()
        await until(lambda: self.ari.requests("POST", "channels/externalMedia"))
        await self.calls.close()
        await self.nothing_left()
        self.assert_went_on("", "1")

    async def test_nobody_answers(self) -> None:
        """An ARI that does not answer is not waited for; nothing goes on afterwards."""
        self.call_in()
        await self.talk()
        self.ari.default = HANGS
        await self.calls.close()
        asked = len(self.ari.asked)
        await sleep(0.3)
        self.assertEqual(len(self.ari.asked), asked)
        self.call_in(caller="2")
        self.calls.connected(True)
        self.assertEqual(len(self.ari.asked), asked)


def _step(method: str, path: str, uri: str) -> str:
    """What step of a call's set-up a request is."""
    words = path.split("/")
    if method != "POST":
        return ""
    if words[-1] == "addChannel":
        return "add media" if "rapida-media-" in uri else "add caller"
    if words[0] == "bridges":
        return "bridge"
    return {"externalMedia": "media"}.get(words[-1], words[-1])


async def _fail(error: Exception) -> Any:
    raise error
