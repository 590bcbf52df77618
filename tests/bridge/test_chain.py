"""Calls through two servers: a phone, the near one with its bridge, the far one behind TLS."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from rapida_twisted.audio.g711 import slin_to_ulaw
from rapida_twisted.tools.phone.options import parse_options
from rapida_twisted.tools.phone.phone import Phone as PhoneTool
from tests.bridge.chain import FAR_ID, FAR_KEY, HOST, NEAR_KEY, ChainTestCase, begins, nothing, says
from tests.bridge.test_far_end_websocket import Bot, Bots
from tests.protocols.websockets import until
from tests.tools.media_server import Heard
from tests.tools.phone.test_main import read_wav

slow = True  # real audio in real time: see tests/support/selection.py

FRAME = array("h", [4000, -4000] * 80).tobytes()
HEARD = "*=tests.tools.media_server:Heard"


def has(frame: bytes) -> Any:
    """Whether so loud a sound was heard as the frame's."""
    peak = max(array("h", frame))
    return lambda heard: bool(heard) and max(array("h", heard)) > peak * 0.9


class WholeTests(ChainTestCase):
    """A whole server at either end."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(Heard, "made", [])

    async def tone(self, *words: str, **settings: Any) -> Any:
        """A call of 3 s with a tone, of which an echo comes back whole; gives its report."""
        self.far_server(HEARD)
        self.near_server(**settings)
        heard = self.folder / "heard.wav"
        key = self.folder / "key"
        key.write_text(NEAR_KEY)
        where = ["--http", f"http://{HOST}:{self.near.http_port}", "--key-file", str(key)]
        if "websocket" not in words:
            where += ["--audiosocket", f"{HOST}:{self.near.audiosocket_port}"]
        options = parse_options(
            ["--tone", "440", "--duration", "3", "--digits", "7@1", "--from", "4930", "--to", "100", "--save",
             str(heard), "--assistant", "123", *where, *words]
        )  # fmt: skip
        (report,) = await PhoneTool(options, reactor).run()
        self.assertEqual((report.problem, report.ended_by), ("", "phone"))
        self.assert_tone(heard)
        (assistant,) = Heard.made
        await until(lambda: assistant.ended)
        self.assertEqual(assistant.digits, "7")
        self.assertEqual((assistant.context.caller, assistant.context.called), ("4930", "100"))
        self.assertEqual(assistant.context.assistant_id, settings.get("upstream_assistant_id", "123"))
        self.assertEqual([str(reason) for reason in assistant.ended], ["caller_hangup"])
        near = await self.ask(f"/v1/calls/{report.context_id}")
        self.assertEqual((near["status"], near["reason"], near["detail"]), ("completed", "caller_hangup", ""))
        self.assertNotEqual(assistant.context.context_id, report.context_id)
        return report

    def assert_tone(self, path: Path) -> None:
        """One tone of 440 Hz, all there: where this process is held up, two frames may come too late and be silence."""
        sound = read_wav(str(path))
        loud = np.flatnonzero(np.abs(sound) > 500)
        sound = sound[loud[0] : loud[-1]]
        self.assertGreater(len(sound), 8000 * 2.3)
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
        self.assertApproximates(np.argmax(spectrum) * 8000 / len(sound), 440, 1)
        steps = sound[: len(sound) // 80 * 80].reshape(-1, 80)
        quiet = np.sqrt((steps**2).mean(axis=1)) < 1000
        self.assertLessEqual(np.count_nonzero(quiet), 4, "quiet steps of 10 ms")

    async def test_audiosocket(self) -> None:
        """AudioSocket here, a WebSocket with TLS there: tone and key arrive, and the numbers with the registration."""
        await self.tone()

    async def test_websocket(self) -> None:
        """A WebSocket at either end."""
        await self.tone("--transport", "websocket")

    async def test_wide_and_json(self) -> None:
        """16 kHz and JSON there, and another assistant than the one that was dialled."""
        await self.tone(upstream_format="slin16", upstream_control="json", upstream_assistant_id="777")
        self.assertEqual(set(Heard.made[0].sizes), {640})

    async def test_far_hangup(self) -> None:
        """When the far assistant hangs up the call ends here, and the dialplan goes on."""
        self.far_server("*=tests.tools.media_server:HangsUp")
        self.near_server()
        phone = await self.call(FRAME)
        record = await self.ended(phone)
        self.assertEqual((record["status"], record["reason"]), ("completed", "assistant_hangup"))
        self.assertTrue(phone.hung_up)
        self.assertGreater(record["audio_out_s"], 0.3)

    async def test_registered_with_the_registration(self) -> None:
        """The far server knows the call before its media comes."""
        self.far_server(HEARD)
        self.near_server()
        await self.register(**{"from": "1"})
        (far,) = await self.far.components.store.recent(10)
        self.assertEqual((far.status.value, far.caller), ("pending", "1"))
        self.assertEqual(Heard.made, [])

    async def test_over_audiosocket(self) -> None:
        """AudioSocket on both sides, registered there: the UUID is the contextId that it got."""
        far = self.far_server(HEARD)
        self.near_server(f"*=bridge:audiosocket://{HOST}:{far.audiosocket_port}")
        phone = await self.call(FRAME)
        await self.hears(phone, has(FRAME))
        phone.send_digit("9")
        await until(lambda: Heard.made[0].digits == "9")
        phone.hang_up()
        await until(lambda: Heard.made[0].ended)
        self.assertEqual((await self.ended(phone))["reason"], "caller_hangup")

    async def test_stopping(self) -> None:
        """A near server that stops hangs up at the far one, too."""
        self.far_server(HEARD)
        near = self.near_server()
        phone = await self.call(FRAME)
        await self.hears(phone, has(FRAME))
        await near.stopService()
        await until(lambda: Heard.made[0].ended)
        self.assertTrue(phone.hung_up)


class ProgramTests(ChainTestCase):
    """A program that speaks chan_websocket, and is registered nowhere."""

    async def test_query(self) -> None:
        """The program gets the call in the query; audio goes both ways, a flush discards the queue."""
        self.far_side()
        self.near_server(
            f"*=bridge:wss://{HOST}:{self.far_port}/v1/talk/asterisk/ctx/bot?token=a%20b", upstream_url="",
            upstream_api_key="",
        )  # fmt: skip
        phone = await self.call(FRAME, **{"from": "+49 30", "to": "100"})
        await until(lambda: self.side.bots.made and self.side.bots.made[0].audio)
        (bot,) = self.side.bots.made
        self.assertEqual(
            bot.path,
            f"/v1/talk/asterisk/ctx/bot?token=a%20b&contextId={phone.call}&from=%2B49%2030&to=100",
        )
        self.assertEqual(bot.audio[0], slin_to_ulaw(FRAME))
        self.assertEqual(self.side.asked, [])
        bot.play(slin_to_ulaw(FRAME) * 50)
        await self.hears(phone, has(FRAME))
        bot.say("FLUSH_MEDIA")
        bot.say("MARK_MEDIA after")
        await until(lambda: any("after" in text for text in bot.texts))
        self.assertLess(len(phone.heard), 320 * 40)
        bot.say("HANGUP")
        self.assertEqual((await self.ended(phone))["reason"], "assistant_hangup")
        self.assertTrue(phone.hung_up)


class BeforeTheCallTests(ChainTestCase):
    """What goes wrong while a call is registered."""

    async def refused(self, status: int, **words: Any) -> str:
        """The registration fails so, with an empty body; gives why."""
        if "register" in words:
            self.far_side(register=words.pop("register"))
        self.near_server(**{"upstream_timeout_s": 0.3, **words})
        answered, body, said = await self.register()
        self.assertEqual((answered, body), (status, ""), said)
        self.assertEqual(await self.ask("/v1/calls"), {"calls": []})
        return said

    async def test_statuses(self) -> None:
        """401, 404, 429, 500 and a redirect: 502, and the far server's status in the text."""
        for status, headers in ((401, {}), (404, {}), (429, {}), (500, {}), (302, {"location": "http://127.0.0.1:1/"})):
            said = await self.refused(502, register=says(status, b"no", **headers))
            self.assertIn(str(status), said)
            self.assertEqual(len(self.side.asked), 1, "it is asked once")

    async def test_bodies(self) -> None:
        """No body, HTML, too much, and what is no UUID: 502."""
        for body in (b"", b"<html><body>Sign in</body></html>", b"x" * 100_000, b"not-a-uuid"):
            self.assertIn("contextId", await self.refused(502, register=says(200, body)))

    async def test_newline(self) -> None:
        """A UUID with a newline behind it is one."""
        self.far_side(register=says(200, FAR_ID.encode() + b"\r\n"))
        self.near_server()
        phone = await self.call(FRAME)
        await until(lambda: self.side.bots.made and self.side.bots.made[0].audio)
        self.assertEqual(self.side.bots.made[0].path, f"/v1/talk/asterisk/ctx/{FAR_ID}?x-api-key={FAR_KEY}")
        phone.hang_up()
        await until(lambda: self.side.bots.made[0].lost)

    async def test_no_answer(self) -> None:
        """No answer, or one without an end: 504, in time."""
        for register in (nothing, begins(FAR_ID.encode()[:10], 36)):
            self.assertIn("0.3 s", await self.refused(504, register=register))

    async def test_unreachable(self) -> None:
        """No server there: 502."""
        said = await self.refused(502, upstream_url=f"https://{HOST}:1", upstream_timeout_s=2.0)
        self.assertIn("can't be reached", said)

    async def test_certificate(self) -> None:
        """A certificate of an unknown authority: 502, with a remedy."""
        self.far_side()
        self.assertIn("TLS__CA_FILE", await self.refused(502, tls_ca_file=""))
        self.assertEqual(self.side.asked, [])

    async def test_others_are_not_delayed(self) -> None:
        """While one registration waits for a far server that says nothing, another assistant's calls go on."""
        self.far_side(register=nothing)
        self.near_server("1=bridge", "*=echo")
        waiting = self.register("1")
        phone = await self.call(FRAME, "2")
        await self.hears(phone, has(FRAME))
        self.assertEqual((await waiting)[0], 504)
        self.assertEqual(phone.over.called, False)

    async def test_fallback(self) -> None:
        """With a fallback the call is registered all the same: that one answers, and the record says why."""
        self.far_side(register=says(500))
        self.near_server(upstream_fallback="echo")
        phone = await self.call(FRAME)
        await self.hears(phone, has(FRAME))
        phone.hang_up()
        record = await self.ended(phone)
        self.assertEqual((record["status"], record["reason"]), ("completed", "caller_hangup"))
        self.assertIn("500", record["detail"])
        self.assertEqual(self.side.bots.made, [])

    async def test_breaker(self) -> None:
        """After five failures in a row it is left alone: 503 at once, and /readyz tells."""
        self.far_side(register=says(500))
        self.near_server("1=bridge", "*=echo")
        self.assertEqual((await self.ask("/readyz"))["assistants"]["1"]["state"], "closed")
        for _ in range(5):
            self.assertEqual((await self.register("1"))[0], 502)
        status, _, said = await self.register("1")
        self.assertEqual((status, len(self.side.asked)), (503, 5), said)
        ready = await self.ask("/readyz")
        self.assertTrue(ready["ready"])
        health = ready["assistants"]["1"]
        self.assertEqual((health["state"], health["failures"]), ("open", 5))
        self.assertIn("500", health["last_error"])
        self.assertEqual((await self.register("2"))[0], 200)

    async def test_not_this_call(self) -> None:
        """An unknown assistant says nothing about the server: each call tries it again."""
        self.far_side(register=says(404))
        self.near_server()
        for _ in range(7):
            self.assertEqual((await self.register())[0], 502)
        self.assertEqual(len(self.side.asked), 7)


class RuleOptionsTests(ChainTestCase):
    """Programs with options of their own, at one server."""

    async def test_two_programs(self) -> None:
        """One rule from a file and one with options in its text: each program gets what its rule says."""
        ports = [self.listen(Bots()), self.listen(Bots())]
        (self.folder / "secret").write_text("Bearer s3cret\n")
        (self.folder / "bot.toml").write_text(
            f'address = "ws://{HOST}:{ports[0]}/media/{{contextId}}?who={{from}}"\n'
            'format = "slin"\ncontrol = "json"\ndigits = false\n'
            '[headers]\nAuthorization = "@secret"\nX-Account = "{variables.ACCOUNT}"\n'
        )
        self.near_server(f"1=bridge:@{self.folder}/bot.toml", f"2=bridge:ws://{HOST}:{ports[1]}/?a=b;format=alaw")
        phones = [await self.call(FRAME, number, **{"from": "+49", "ACCOUNT": "7"}) for number in "12"]
        await until(lambda: all(factory.made and factory.made[0].audio for factory in self.bots))
        for phone in phones:
            phone.send_digit("5")
        first, second = (factory.made[0] for factory in self.bots)
        await until(lambda: len(second.texts) == 2)
        self.assertEqual(first.path, f"/media/{phones[0].call}?who=%2B49")
        self.assertEqual(first.http_headers["authorization"], "Bearer s3cret")
        self.assertEqual(first.http_headers["x-account"], "7")
        self.assertEqual(json.loads(first.texts[0])["format"], "slin")
        self.assertIn("DTMF_END", second.texts[1])
        self.assertIn("format:alaw", second.texts[0])
        self.assertEqual(second.path, f"/?a=b&contextId={phones[1].call}&from=%2B49&to=")
        first.play(FRAME)
        first.sendClose(1000, "the shift is over")
        record = await self.ended(phones[0])
        self.assertEqual((record["reason"], len(first.texts)), ("assistant_hangup", 1))
        self.assertIn("closed the call with 1000 the shift is over", record["detail"])
        self.answers.append(json.dumps(record))
        self.assertFalse([answer for answer in self.answers if "s3cret" in answer])

    def listen(self, factory: Bots) -> int:
        """A program; gives its port."""
        self.bots = [*getattr(self, "bots", []), factory]
        port = reactor.listenTCP(0, factory, interface=HOST)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)


class InTheCallTests(ChainTestCase):
    """What goes wrong once the media is there."""

    async def fails(self, bot: type[Bot], word: str, **words: Any) -> None:
        """Such a program makes the call end so; with a fallback that one takes over, in the same call."""
        for fallback in ("", "echo"):
            self.far_side(bot=bot)
            self.near_server(upstream_fallback=fallback, **words)
            other = await self.call(FRAME)
            phone = other
            if fallback:
                await self.hears(phone, has(FRAME))
                phone.hang_up()
            record = await self.ended(phone)
            expected = ("completed", "caller_hangup") if fallback else ("failed", "upstream_failed")
            self.assertEqual((record["status"], record["reason"]), expected, record)
            self.assertIn(word, record["detail"])
            self.assertEqual(phone.hung_up, not fallback)
            warned = [event for event in self.log.events if str(phone.call) in str(event.get("id", ""))]
            self.assertLessEqual(len([e for e in warned if "failure" in e or "traceback" in e]), 1)
            self.assertEqual(self.flushLoggedErrors(), [])

    async def test_refused(self) -> None:
        """A WebSocket that is refused."""
        await self.fails(type("Denying", (Bot,), {"deny": (503, "full")}), "503")

    async def test_closes_at_once(self) -> None:
        """One that is closed at once."""

        class Closing(Bot):
            def onOpen(self) -> None:
                self.sendClose(1000)

        await self.fails(Closing, "closed the call")

    async def test_cut(self) -> None:
        """One that is cut in the middle."""

        class Cutting(Bot):
            def onOpen(self) -> None:
                reactor.callLater(0.2, self.transport.abortConnection)  # type: ignore[attr-defined]

        await self.fails(Cutting, "lost")

    async def test_garbage(self) -> None:
        """One that breaks the protocol."""

        class Babbling(Bot):
            def onOpen(self) -> None:
                self.transport.write(b"\xff\xff\xff\xff")

        await self.fails(Babbling, "broke the protocol")

    async def test_silent(self) -> None:
        """One that stops reading and says nothing any more."""

        class Sleeping(Bot):
            def onOpen(self) -> None:
                self.transport.pauseProducing()

        await self.fails(Sleeping, "answered no ping for 1 s", upstream_stalled_s=1.0)

    async def test_handshake_hangs(self) -> None:
        """One whose handshake is never answered: in time."""

        class Thinking(Bot):
            def onConnect(self, request: Any) -> Any:
                return Deferred()

        await self.fails(Thinking, "within", upstream_timeout_s=0.3)

    async def test_caller_gives_up(self) -> None:
        """A caller who hangs up while the far end connects leaves nothing behind."""

        class Thinking(Bot):
            def onConnect(self, request: Any) -> Any:
                return Deferred()

        self.far_side(bot=Thinking)
        self.near_server()
        phone = await self.call(FRAME)
        await until(lambda: self.side.bots.made)
        phone.hang_up()
        record = await self.ended(phone)
        self.assertEqual((record["reason"], record["detail"]), ("caller_hangup", ""))
        await until(lambda: self.side.bots.made[0].lost)

    async def test_transfer(self) -> None:
        """The fallback may be an extension: the dialplan gets its dial string."""

        class Cutting(Bot):
            def onOpen(self) -> None:
                reactor.callLater(0.1, self.transport.abortConnection)  # type: ignore[attr-defined]

        self.far_side(bot=Cutting)
        self.near_server(upstream_fallback="next:PJSIP/200", transfer_allow=("PJSIP/200",))
        phone = await self.call(FRAME)
        record = await self.ended(phone)
        self.assertEqual((record["status"], record["reason"], record["next_dial"]), (
            "completed", "transferred", "PJSIP/200",
        ))  # fmt: skip
        self.assertIn("lost", record["detail"])
