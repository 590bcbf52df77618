"""Calls in the Stasis application: inbound and outbound ones, and the end of the application's service."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from rapida_twisted.context import EndReason
from rapida_twisted.errors import Draining, RapidaError, StoreUnavailable, TooManyCalls
from tests.asterisk.scripted_ari import HANGS, Answer, sleep, until
from tests.asterisk.stasis.stasis_case import APP, CALLER, INTERNAL, StasisTestCase


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
        self.assertIn("does not know our trunks", self.warnings[0])

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
        self.assertIn("Local/EXTEN@CONTEXT always works", self.warnings[0])

    async def test_no_media(self) -> None:
        """One that gets no media is hung up."""
        self.ari.script("POST", "channels/externalMedia", INTERNAL)
        channel_id = await self.call_out()
        await self.nothing_left()
        self.assertEqual(self.ari.hung_up, [(channel_id, "normal")])
        (warning,) = self.warnings
        self.assertIn(self.context_id, warning)
        self.assertIn("is 192.0.2.7:9092 this server", warning)
        self.assertIs(self.bridges.get(self.context_id), True)


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


async def _fail(error: Exception) -> Any:
    raise error
