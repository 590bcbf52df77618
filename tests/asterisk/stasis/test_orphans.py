"""Channels and bridges without a call: of an earlier process, or of a gap in the events."""

from __future__ import annotations

from uuid import uuid4

from rapida_twisted.asterisk.ari.client import AriChannel, AriClient, channel_id_of
from rapida_twisted.asterisk.stasis import call as stasis_call
from rapida_twisted.asterisk.stasis import orphans
from rapida_twisted.asterisk.stasis.call import MEDIA_PREFIX
from rapida_twisted.context import Direction, EndReason
from tests.asterisk.scripted_ari import Answer, sleep, until
from tests.asterisk.stasis.stasis_case import APP, CALLER, NOW, StasisTestCase


class OrphanTests(StasisTestCase):
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

    async def test_handed_over_while_listed(self) -> None:
        """So does a call whose media came just after Asterisk had listed its channels."""
        self.call_in()
        await self.talk()
        listed: list[int] = []
        channels = AriClient.channels

        async def without_media_at_first(client: AriClient) -> list[AriChannel]:
            found = await channels(client)
            listed.append(len(found))
            return found if len(listed) > 1 else [each for each in found if not each.id.startswith(MEDIA_PREFIX)]

        self.patch(AriClient, "channels", without_media_at_first)
        await self.another_looks_after_it()
        await until(lambda: self.calls.count)
        await sleep(0.3)
        self.assertEqual(self.inside(), [CALLER, self.media_id])
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
        self.patch(orphans, "EVENT_LAG_S", 0.3)
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
