"""The phone as a whole, against a small echo server on loopback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from rapida_twisted.credentials.key_file import KEY_FILE
from rapida_twisted.errors import RegistrationRefused
from rapida_twisted.tools.phone import phone, plan
from rapida_twisted.tools.phone.figures import Spread
from rapida_twisted.tools.phone.options import parse_options
from rapida_twisted.tools.phone.phone import Phone
from rapida_twisted.tools.phone.plan import TimedDigit
from rapida_twisted.tools.phone.report import CallReport, summary_object, summary_text
from rapida_twisted.tools.phone.status_line import status_text
from tests.tools.echo_server import API_KEY, EchoServer

REPO = Path(__file__).resolve().parent.parent.parent


def write_wav(path: str, samples: np.ndarray, rate_hz: int = 8000) -> None:
    """A mono WAV file of 16-bit samples."""
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, rate_hz, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())


def read_wav(path: str) -> np.ndarray:
    """The samples of a mono WAV file at 8 kHz."""
    with wave.open(path, "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)


class PhoneTestCase(TestCase):
    """A server that is up, and the key in the environment."""

    def setUp(self) -> None:
        self.patch(os, "environ", {**os.environ, "RAPIDA_API_KEY": API_KEY})
        self.server = EchoServer(reactor)
        self.server.listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(self._close()))

    async def _close(self) -> None:
        await self.server.stop()
        await deferLater(reactor, 0.05)  # the server's ends of the connections close

    def phone(self, *arguments: str) -> Phone:
        """A phone that calls the server."""
        return Phone(parse_options([*self.server.arguments, *arguments]), reactor)

    async def call(self, *arguments: str) -> CallReport:
        """Place one call, and give its report."""
        (report,) = await self.phone(*arguments).run()
        return report


class CallTests(PhoneTestCase):
    """Calls that go well."""

    async def test_tone(self) -> None:
        """The tone that is sent comes back from an echo, is saved, and its round trip is known."""
        report = await self.call("--tone", "440", "--duration", "1.5", "--save", "heard.wav")
        self.assertEqual(report.problem, "")
        self.assertEqual((report.ended_by, report.saved), ("phone", "heard.wav"))
        assert report.heard is not None
        assert report.level_db is not None
        assert report.round_trip_ms is not None
        self.assertApproximates(report.duration_s, 1.5, 0.2)
        self.assertApproximates(report.frames_out, 75, 10)
        self.assertApproximates(report.level_db, -10.3, 1)
        self.assertLessEqual(report.heard.missing, 5)
        self.assertLess(report.round_trip_ms.p50, 100)
        self.assertGreaterEqual(report.round_trips, 3)
        heard = read_wav("heard.wav")
        self.assertEqual(len(heard), report.heard.frames * 160)
        spectrum = np.abs(np.fft.rfft(heard[-8000:]))
        self.assertApproximates(np.argmax(spectrum) * 8000 / 8000, 440, 1)

    async def test_wav(self) -> None:
        """A WAV file is sent as it is, then silence, and the call ends soon after it."""
        self.patch(plan, "AFTER_LAST_S", 0.3)
        samples = np.random.default_rng(1).integers(-8000, 8000, 4000)
        write_wav("said.wav", samples)
        report = await self.call("--say", "said.wav")
        said = samples.astype("<i2").tobytes()
        heard = self.server.calls[0].heard
        self.assertEqual(report.problem, "")
        self.assertEqual(heard[: len(said)], said)
        self.assertEqual(set(heard[len(said) :]), {0})
        self.assertApproximates(report.duration_s, 0.8, 0.2)

    async def test_wav_of_another_rate(self) -> None:
        """A WAV file at 16 kHz takes as long as it lasts, and sounds the same."""
        time_s = np.arange(8000) / 16000
        write_wav("said.wav", 8000 * np.sin(2 * np.pi * 1000 * time_s), 16000)
        await self.call("--say", "said.wav", "--duration", "0.8")
        heard = np.frombuffer(self.server.calls[0].heard[:8000], "<i2")
        self.assertApproximates(np.argmax(np.abs(np.fft.rfft(heard))) * 2, 1000, 2)
        self.assertApproximates(float(np.std(heard[800:3200])), 8000 / 2**0.5, 100)

    async def test_digits(self) -> None:
        """Digits are pressed at their times, whatever their order on the command line."""
        report = await self.call("--digits", "#@0.7,1@0.3", "--duration", "1")
        times_s, digits = zip(*self.server.calls[0].digits, strict=True)
        self.assertEqual(("".join(digits), report.digits_sent), ("1#", "1#"))
        self.assertApproximates(times_s[0], 0.3, 0.1)
        self.assertApproximates(times_s[1], 0.7, 0.1)

    async def test_silence(self) -> None:
        """By default the line is quiet: frames of silence are sent, and silence heard is no failure."""
        report = await self.call("--duration", "0.5")
        self.assertEqual(report.problem, "")
        self.assertIsNone(report.level_db)
        self.assertGreater(len(self.server.calls[0].heard), 3200)
        self.assertEqual(set(self.server.calls[0].heard), {0})

    async def test_mute(self) -> None:
        """A mute phone sends no frame, and still listens and presses digits."""
        report = await self.call("--mute", "--digits", "5@0.2", "--duration", "0.5")
        self.assertEqual((report.problem, report.frames_out), ("", 0))
        self.assertEqual(self.server.calls[0].heard, b"")
        self.assertEqual([digit for _, digit in self.server.calls[0].digits], ["5"])

    async def test_packet_time(self) -> None:
        """Packets of 60 ms are three times as long, and a third as many."""
        report = await self.call("--ptime", "60", "--tone", "1004", "--duration", "1")
        self.assertEqual(set(self.server.calls[0].sizes), {960})
        self.assertApproximates(report.frames_out, 16, 3)

    async def test_missing_frames(self) -> None:
        """Frames that the server leaves out are counted."""
        self.server.skip = frozenset({10, 20, 21})
        report = await self.call("--duration", "1.2")
        assert report.heard is not None
        self.assertEqual(report.problem, "")
        self.assertApproximates(report.heard.missing, 3, 1)

    async def test_server_hangs_up(self) -> None:
        """A server that hangs up ends the call, and that is no failure."""
        self.server.hang_up_at = 25
        report = await self.call("--tone", "440")
        self.assertEqual((report.problem, report.ended_by), ("", "server"))
        self.assertIn("hangup frame", report.reason)
        self.assertApproximates(report.duration_s, 0.5, 0.2)

    async def test_registration_words(self) -> None:
        """The caller's number and the dialled one are told at registration."""
        await self.call("--from", "+49 30 1", "--to", "200", "--duration", "0.2")
        arguments = self.server.requests[0]
        self.assertIn("+49 30 1", arguments.values())
        self.assertIn("200", arguments.values())

    async def test_several_calls(self) -> None:
        """Several calls are started at the rate, saved in files with numbers, and summed up."""
        phone = self.phone("--calls", "3", "--rate", "10", "--tone", "300", "--duration", "0.6", "--save", "a.wav")
        reports = await phone.run()
        self.assertEqual([report.problem for report in reports], [""] * 3)
        self.assertEqual([report.saved for report in reports], ["a-1.wav", "a-2.wav", "a-3.wav"])
        for report in reports:
            assert report.heard is not None
            self.assertEqual(len(read_wav(report.saved)), report.heard.frames * 160)
        started_s = [call.started_s for call in self.server.calls]
        self.assertApproximates(started_s[2] - started_s[0], 0.2, 0.1)
        self.assertIn("3 calls: 3 went well, 0 did not", summary_text(reports, phone.sending_late_ms))
        self.assertIsNotNone(phone.sending_late_ms)


class FailureTests(PhoneTestCase):
    """Calls that do not go well: one sentence that says what to do."""

    async def test_wrong_key(self) -> None:
        """A refused key says where the key is taken from."""
        os.environ["RAPIDA_API_KEY"] = "rpd-another-key"
        report = await self.call("--duration", "0.2")
        self.assertIn("401", report.problem)
        self.assertIn("RAPIDA_API_KEY", report.problem)

    async def test_unknown_assistant(self) -> None:
        """An assistant that the server does not have says which option names it."""
        report = await self.call("--assistant", "1", "--duration", "0.2")
        self.assertIn("--assistant", report.problem)

    async def test_no_http_server(self) -> None:
        """Where nobody registers calls, the option that says where to is named."""
        report = await self.call("--http", "http://127.0.0.1:9", "--duration", "0.2")
        self.assertIn("--http", report.problem)
        self.assertIsNone(report.registration_ms)

    async def test_refused_at_once(self) -> None:
        """A registration that fails before anything was waited for is told like any other."""

        async def register(*args: object, **kwargs: object) -> str:
            raise RegistrationRefused(503, "it is full")

        self.patch(phone, "register_call", register)
        report = await self.call()
        self.assertIn("it is full", report.problem)

    async def test_no_audiosocket_server(self) -> None:
        """Where nobody takes the media, the option that says where to is named."""
        report = await self.call("--audiosocket", "127.0.0.1:9", "--duration", "0.2")
        self.assertIn("--audiosocket", report.problem)
        self.assertIsNotNone(report.registration_ms)

    async def test_nothing_heard(self) -> None:
        """A call in which nothing was heard did not go well."""
        self.server.silent, self.server.hang_up_at = True, 10
        report = await self.call()
        self.assertIn("the server sent no audio", report.problem)
        self.assertEqual(report.ended_by, "server")

    async def test_refused_context(self) -> None:
        """A server that does not know the contextId hangs up, and the server sent no audio."""
        self.patch(self.server, "register", lambda: "5e4bd5f6-3f84-4f1c-8a80-6a7a5b1e9d10")
        report = await self.call()
        self.assertIn("the server sent no audio", report.problem)

    async def test_no_context_id(self) -> None:
        """An answer that is no contextId is told as that."""
        self.patch(self.server, "register", lambda: "<html>hello</html>")
        report = await self.call()
        self.assertNotEqual(report.problem, "")
        self.assertIsNone(report.connection_ms)

    async def test_unwritable_file(self) -> None:
        """A file that can't be written any more spoils the call's result, not the call."""
        phone = self.phone("--save", "later.wav", "--duration", "0.4")
        Path("later.wav").mkdir()
        (report,) = await phone.run()
        self.assertIn("later.wav", report.problem)
        self.assertApproximates(report.duration_s, 0.4, 0.2)

    async def test_interrupted(self) -> None:
        """An interrupted phone hangs up its calls in order, places no more, and does not say that they went well."""
        phone = self.phone("--calls", "3", "--rate", "2")
        reactor.callLater(0.3, phone.interrupt)
        reports = await phone.run()
        self.assertEqual([(report.problem, report.reason) for report in reports], [("interrupted", "interrupted")])

    async def test_interrupted_early(self) -> None:
        """A call that is interrupted before it was up says so."""
        self.patch(self.server, "delay_s", 0.5)
        phone = self.phone()
        reactor.callLater(0.1, phone.interrupt)
        (report,) = await phone.run()
        self.assertIn("interrupted", report.problem)


class OptionsTestCase(SynchronousTestCase):
    """The key in the environment."""

    def setUp(self) -> None:
        self.patch(os, "environ", {**os.environ, "RAPIDA_API_KEY": API_KEY})

    def refusal(self, *arguments: str) -> str:
        """What a command line that can't be used is answered with."""
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        stopped = self.assertRaises(SystemExit, parse_options, arguments)
        self.assertEqual(stopped.code, 2)
        self.assertNotIn("Traceback", errors.getvalue())
        return errors.getvalue().splitlines()[-1]


class OptionsTests(OptionsTestCase):
    """The command line."""

    def test_defaults(self) -> None:
        """Without options the local server's default assistant is called from a quiet line."""
        options = parse_options([])
        self.assertEqual((options.http_url, options.audiosocket), ("http://127.0.0.1:8080", ("127.0.0.1", 4573)))
        self.assertEqual((options.assistant_id, options.calls, options.packet_ms), ("123456789", 1, 20))
        self.assertEqual((options.plan.end_s, options.plan.save, options.api_key), (60.0, None, API_KEY))

    def test_digits(self) -> None:
        """Digits come with their times; lower case is taken."""
        self.assertEqual(
            parse_options(["--digits", "1@2.5,#@6,a@0"]).plan.digits,
            (TimedDigit(2.5, "1"), TimedDigit(6, "#"), TimedDigit(0, "A")),
        )

    def test_wrong_words(self) -> None:
        """Each wrong word is refused with a sentence that names its option."""
        for option, word in (
            ("--digits", "12@3"),
            ("--digits", "1"),
            ("--digits", "X@1"),
            ("--digits", "1@nan"),
            ("--tone", "5000"),
            ("--tone", "loud"),
            ("--calls", "0"),
            ("--rate", "0"),
            ("--duration", "-1"),
            ("--ptime", "25"),
            ("--http", "127.0.0.1:8080"),
            ("--audiosocket", "4573"),
            ("--audiosocket", "localhost:0"),
        ):
            self.assertIn(option, self.refusal(option, word))

    def test_two_sounds(self) -> None:
        """One phone says one thing."""
        self.assertIn("not allowed with", self.refusal("--tone", "440", "--mute"))

    def test_no_wav(self) -> None:
        """A file that is not there, or no WAV file, is refused by its name."""
        self.assertIn("cannot read no-such.wav (No such file or directory)", self.refusal("--say", "no-such.wav"))
        Path("text.wav").write_text("hello")
        self.assertIn("text.wav", self.refusal("--say", "text.wav"))

    def test_key_of_the_environment(self) -> None:
        """Of several keys in the environment the first is used, and a named file wins over it."""
        os.environ["RAPIDA_API_KEY"] = "rpd-first-key,rpd-second-key"
        self.assertEqual(parse_options([]).api_key, "rpd-first-key")
        Path("key").write_text("rpd-of-the-file\n")
        self.assertEqual(parse_options(["--key-file", "key"]).api_key, "rpd-of-the-file")

    def test_key_of_the_server(self) -> None:
        """Without a word about the key it is the one in the server's state directory."""
        state = Path(self.mktemp())
        state.mkdir()
        (state / KEY_FILE).write_text("rpd-of-the-server\n")
        os.environ.pop("RAPIDA_API_KEY")
        os.environ["STATE_DIR"] = str(state)
        self.assertEqual(parse_options([]).api_key, "rpd-of-the-server")

    def test_no_key(self) -> None:
        """Without any key the person is told where one is taken from."""
        os.environ.pop("RAPIDA_API_KEY")
        os.environ["STATE_DIR"] = "/nonexistent"
        said = self.refusal()
        self.assertIn("RAPIDA_API_KEY", said)
        self.assertIn("--key-file", said)


class ReportTests(SynchronousTestCase):
    """What is shown."""

    def test_json(self) -> None:
        """The summary is a JSON object, also of calls that never were up."""
        reports = [CallReport(1, problem="it failed"), CallReport(2)]
        shown = json.loads(json.dumps(summary_object(reports, Spread(0.1, 0.2, 0.3))))
        self.assertEqual((shown["calls"], shown["ok"]), (2, 1))
        self.assertEqual([each["ok"] for each in shown["each"]], [False, True])
        self.assertEqual(shown["sending_late_ms"], {"p50": 0.1, "p99": 0.2, "max": 0.3})

    def test_problem_in_text(self) -> None:
        """A call that failed is one line with its problem; of several, equal problems are counted."""
        self.assertEqual(summary_text([CallReport(1, problem="no luck")], None), "call (not registered): no luck")
        self.assertIn("2 x      no luck", summary_text([CallReport(n, problem="no luck") for n in (1, 2)], None))

    def test_status_text(self) -> None:
        """The live line says n/a and silence where there is nothing to tell."""
        self.assertEqual(status_text([], 1.25), "   1.2 s  out 0  in 0  level silence  round trip n/a")


class ProgramTests(PhoneTestCase):
    """The console script, in a process of its own."""

    slow = True

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start it."""
        code = "from rapida_twisted.tools.phone.main import main; main()"
        argv = [sys.executable, "-c", code, *self.server.arguments, *arguments]
        return subprocess.Popen(argv, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)

    async def ended(self, process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
        """Its exit code, and what it said."""
        out, err = await deferToThread(process.communicate, timeout=30)
        return process.returncode, out, err

    async def test_exit_code_0(self) -> None:
        """A call that went well exits 0, with JSON alone on standard output and nothing beside it."""
        code, out, err = await self.ended(self.start("--tone", "440", "--duration", "0.8", "--json"))
        self.assertEqual((code, err), (0, b""))
        shown = json.loads(out)
        self.assertEqual((shown["calls"], shown["ok"], shown["each"][0]["ended_by"]), (1, 1, "phone"))

    async def test_exit_code_1(self) -> None:
        """A server that is not there is one sentence, exit code 1, and no traceback."""
        code, out, err = await self.ended(self.start("--http", "http://127.0.0.1:9"))
        self.assertEqual((code, err), (1, b""))
        self.assertIn(b"--http", out)
        self.assertEqual(len(out.splitlines()), 1)

    async def test_closed_pipe(self) -> None:
        """A reader that is gone before the summary changes nothing but that."""
        process = self.start("--tone", "440", "--duration", "0.8", "--tolerate", "100")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = await deferToThread(process.stderr.read)
        self.assertEqual((await deferToThread(process.wait, 30), err), (0, b""))

    async def test_exit_code_2(self) -> None:
        """A wrong command line exits 2 with one sentence, before any call; so does a file that can't be written."""
        for arguments in (("--calls", "many"), ("--frob",), ("--save", "nowhere/heard.wav"), ("--save", ".")):
            code, out, err = await self.ended(self.start(*arguments))
            self.assertEqual((code, out, err.count(b"\n")), (2, b"", 1))
            self.assertIn(arguments[0].encode(), err)
            self.assertIn(b"see rapida-phone --help", err)
        self.assertEqual(self.server.requests, [])

    async def test_interrupt_key(self) -> None:
        """Ctrl-C hangs up, prints the summary, and exits 130."""
        process = self.start("--tone", "440")
        while not self.server.calls:
            await deferLater(reactor, 0.05)
        await deferLater(reactor, 0.5)
        process.send_signal(signal.SIGINT)
        code, out, err = await self.ended(process)
        self.assertEqual((code, err), (130, b""))
        self.assertIn(b": interrupted", out)
        self.assertEqual(len(self.server.calls[0].ended), 1)
