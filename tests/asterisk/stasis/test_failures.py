"""Calls in the Stasis application whose requests fail, or whose events come late, early or twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rapida_twisted.asterisk.stasis import call as stasis_call
from tests.asterisk.scripted_ari import ALLOCATION_FAILED, HANGS, LOST, LOST_BUT_DONE, Answer, sleep, until
from tests.asterisk.stasis.stasis_case import APP, CALLER, INTERNAL, StasisTestCase


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
        self.assertIn("did not enter the application", self.warnings[0])

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
        self.assertIn("cannot remove", self.warnings[0])
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


def _step(method: str, path: str, uri: str) -> str:
    """The step of a call's set-up that a request belongs to."""
    segments = path.split("/")
    if method != "POST":
        return ""
    if segments[-1] == "addChannel":
        return "add media" if "rapida-media-" in uri else "add caller"
    if segments[0] == "bridges":
        return "bridge"
    return {"externalMedia": "media"}.get(segments[-1], segments[-1])
