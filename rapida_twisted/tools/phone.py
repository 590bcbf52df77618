"""``rapida-phone``: a telephone without an Asterisk.

It does what the dialplan and Asterisk do: registers a call over HTTP, opens the media connection with the contextId,
talks and listens in real time, and tells at the end how the call was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.task import deferLater, react
from twisted.web.client import Agent

from rapida_twisted.errors import RapidaError
from rapida_twisted.keyfile import KEY_FILE
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.settings import default_state_dir
from rapida_twisted.tools.phone_call import AudioSocketLine, CallPlan, Line, PhoneCall, TimedDigit
from rapida_twisted.tools.phone_figures import Spread
from rapida_twisted.tools.phone_live import LiveLine
from rapida_twisted.tools.phone_report import CallReport, summary_object, summary_text
from rapida_twisted.tools.phone_sound import MuteSound, Sound, ToneSound, read_wav, silence
from rapida_twisted.upstream.registration import register_call
from rapida_twisted.wire.audiosocket import DIGITS

__all__ = ["Phone", "PhoneOptions", "main", "parse_options"]

CONNECT_TIMEOUT_S = 5.0
PACKET_TIMES_MS = (10, 20, 30, 60)


@dataclass(frozen=True, kw_only=True)
class PhoneOptions:
    """What the command line said, checked."""

    plan: CallPlan
    api_key: str
    http_url: str = "http://127.0.0.1:8080"
    audiosocket: tuple[str, int] = ("127.0.0.1", 4573)
    assistant_id: str = "123456789"
    caller: str = ""
    called: str = ""
    packet_ms: int = 20
    calls: int = 1
    rate: float = 10.0
    as_json: bool = False


class Phone:
    """Places the calls of some options.

    :param reactor: connects, and provides the time for timers.
    :param now: a monotonic time in seconds.
    """

    def __init__(self, options: PhoneOptions, reactor: Any, now: Callable[[], float] = time.monotonic) -> None:
        self.calls: list[PhoneCall] = []
        """Those placed so far."""
        self._options = options
        self._reactor = reactor
        self._now = now
        self._clock = MediaClock(reactor, now, period_s=options.packet_ms / 1000)
        self._treq = HTTPClient(Agent(reactor, connectTimeout=CONNECT_TIMEOUT_S))
        self._endpoint = HostnameEndpoint(reactor, *options.audiosocket, timeout=CONNECT_TIMEOUT_S)
        self._interrupted = False
        self._waiting: Deferred[None] = succeed(None)

    async def run(self) -> list[CallReport]:
        """Place all calls, and wait for the end of the last one. Gives their reports, in order."""
        started_s, placed = self._now(), []
        for number in range(1, self._options.calls + 1):
            await self._wait_until(started_s + (number - 1) / self._options.rate)
            if self._interrupted:
                break
            call = self._make_call(number)
            self.calls.append(call)
            placed.append(Deferred.fromCoroutine(call.place()))
        return await gatherResults(placed, consumeErrors=True)

    def interrupt(self) -> None:
        """Place no more calls, and end those that there are."""
        self._interrupted = True
        self._waiting.cancel()
        for call in self.calls:
            call.hang_up("interrupted")

    @property
    def sending_late_ms(self) -> Spread | None:
        """How late this phone sent its own frames."""
        lateness = self._clock.lateness
        if not sum(lateness.counts):
            return None
        p50, p99 = lateness.percentile_ms(0.5), lateness.percentile_ms(0.99)
        return Spread(round(p50, 2), round(p99, 2), round(lateness.max_s * 1000, 2))

    async def _wait_until(self, at_s: float) -> None:
        """Wait until then, or until the phone is interrupted."""
        self._waiting = deferLater(self._reactor, max(0.0, at_s - self._now()))
        try:
            await self._waiting
        except CancelledError:
            if not self._interrupted:
                raise

    def _make_call(self, number: int) -> PhoneCall:
        return PhoneCall(
            number,
            self._options.plan.numbered(number if self._options.calls > 1 else None),
            clock=self._clock,
            reactor=self._reactor,
            register=self._register,
            dial=self._dial,
            now=self._now,
        )

    async def _register(self) -> str:
        options = self._options
        return await register_call(
            options.http_url,
            options.assistant_id,
            options.api_key,
            caller=options.caller,
            called=options.called,
            treq_client=self._treq,
            reactor=self._reactor,
        )

    async def _dial(self, call_id: UUID, call: PhoneCall) -> Line:
        return await AudioSocketLine.dial(self._endpoint, call_id, call)


# The command line


def parse_options(argv: Sequence[str]) -> PhoneOptions:
    """The options of a command line. A wrong one ends the program with exit code 2 and one sentence."""
    parser = _parser()
    words = parser.parse_args(argv)
    try:
        return PhoneOptions(
            plan=CallPlan(_sound(words), words.digits, words.duration, words.save),
            api_key=_api_key(words.key_file),
            http_url=words.http,
            audiosocket=words.audiosocket,
            assistant_id=words.assistant,
            caller=words.caller,
            called=words.called,
            packet_ms=words.ptime,
            calls=words.calls,
            rate=words.rate,
            as_json=words.json,
        )
    except (OSError, ValueError, RapidaError) as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rapida-phone",
        description="A telephone without an Asterisk: registers a call at a rapida-media server, talks and listens, and"
        " tells how the call was.",
        epilog="The API key is taken from RAPIDA_API_KEY or a key file, never from the command line. Exit codes: 0 all"
        " calls went well, 1 some call did not, 2 the command line can't be used.",
    )
    what = parser.add_argument_group("what to say").add_mutually_exclusive_group()
    what.add_argument("--say", metavar="FILE", help="a WAV file, in real time; then silence")
    what.add_argument("--tone", metavar="HZ", type=_tone_hz, help="a steady tone")
    what.add_argument("--mute", action="store_true", help="send no audio at all [default: frames of silence]")
    parser.add_argument(
        "--digits", metavar="D@S,...", type=_digits, default=(), help="keys to press, and when: 1@2.5,#@6"
    )
    parser.add_argument(
        "--save", metavar="FILE", type=Path, help="a WAV file for what is heard (several calls: FILE-N)"
    )
    parser.add_argument(
        "--duration",
        metavar="S",
        type=_positive,
        help="hang up after S seconds [default: when the WAV file and the digits are over, plus 2 s; at most 60 s]",
    )
    parser.add_argument("--calls", metavar="N", type=_count, default=1, help="place N calls [default: 1]")
    parser.add_argument(
        "--rate", metavar="R", type=_positive, default=10.0, help="calls started a second [default: 10]"
    )
    parser.add_argument("--ptime", type=int, choices=PACKET_TIMES_MS, default=20, help="ms a packet [default: 20]")
    parser.add_argument("--assistant", metavar="ID", default="123456789", help="whom to call [default: 123456789]")
    parser.add_argument("--from", metavar="NUMBER", dest="caller", default="", help="the caller's number")
    parser.add_argument("--to", metavar="NUMBER", dest="called", default="", help="the dialled number")
    parser.add_argument(
        "--http", metavar="URL", type=_url, default="http://127.0.0.1:8080", help="[default: http://127.0.0.1:8080]"
    )
    parser.add_argument(
        "--audiosocket",
        metavar="HOST:PORT",
        type=_host_port,
        default=("127.0.0.1", 4573),
        help="[default: 127.0.0.1:4573]",
    )
    parser.add_argument(
        "--key-file", metavar="FILE", type=Path, help="file that holds the API key [default: the server's own]"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return parser


def _sound(words: argparse.Namespace) -> Sound:
    if words.mute:
        return MuteSound()
    if words.tone is not None:
        return ToneSound(words.tone, words.ptime)
    return read_wav(Path(words.say), words.ptime) if words.say is not None else silence(words.ptime)


def _api_key(key_file: Path | None) -> str:
    """The key: the file's, if one is named, else the environment's, else the server's own."""
    from_environment = os.environ.get("RAPIDA_API_KEY", "").split(",")[0].strip()
    if key_file is None and from_environment:
        return from_environment
    path = key_file or Path(os.environ.get("STATE_DIR") or default_state_dir()) / KEY_FILE
    try:
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        raise ValueError(
            f"there is no API key: {path} can't be read ({reason}); set RAPIDA_API_KEY, or name the file (--key-file)"
        ) from None
    if not key:
        raise ValueError(f"there is no API key: {path} is empty")
    return key


def _tone_hz(word: str) -> float:
    hertz = _number(word)
    if not 1 <= hertz <= 3999:
        raise argparse.ArgumentTypeError(f"a telephone carries tones from 1 to 3999 Hz, not {word!r}")
    return hertz


def _positive(word: str) -> float:
    number = _number(word)
    if not 0 < number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {word!r}")
    return number


def _count(word: str) -> int:
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= 10_000):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 10000, not {word!r}")
    return int(word)


def _digits(word: str) -> tuple[TimedDigit, ...]:
    timed = []
    for part in word.split(","):
        digit, at, when = part.strip().partition("@")
        seconds = _number(when) if at else -1.0
        if len(digit) != 1 or digit.upper() not in DIGITS or not 0 <= seconds <= 86_400:
            raise argparse.ArgumentTypeError(
                f"{part!r} is no digit at a time: expected one of {DIGITS}, @, and seconds, as in 1@2.5"
            )
        timed.append(TimedDigit(seconds, digit.upper()))
    return tuple(timed)


def _number(word: str) -> float:
    """A finite number, or -1."""
    try:
        number = float(word)
    except ValueError:
        return -1.0
    return number if abs(number) < float("inf") else -1.0


def _url(word: str) -> str:
    parts = urlsplit(word)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"expected an address such as http://127.0.0.1:8080, not {word!r}")
    return word.rstrip("/")


def _host_port(word: str) -> tuple[str, int]:
    host, colon, port = word.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, such as 127.0.0.1:4573, not {word!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


# The program


async def _run(reactor: Any, options: PhoneOptions) -> None:
    """Place the calls, show them, print the summary; ends the program with exit code 1 if a call did not go well."""
    phone = Phone(options, reactor)
    printed: Deferred[None] = Deferred()

    def shutting_down() -> Deferred[None]:
        phone.interrupt()
        return printed

    reactor.addSystemEventTrigger("before", "shutdown", shutting_down)
    live = LiveLine(sys.stderr, phone.calls, time.monotonic, reactor) if sys.stderr.isatty() else None
    try:
        if live is not None:
            live.start()
        reports = await phone.run()
        if live is not None:
            live.stop()
        _print_summary(reports, phone.sending_late_ms, options.as_json)
    finally:
        printed.callback(None)
    if not reports or not all(report.ok for report in reports):
        raise SystemExit(1)


def _print_summary(reports: list[CallReport], sending_late_ms: Spread | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary_object(reports, sending_late_ms)))
    elif reports:
        print(summary_text(reports, sending_late_ms))
    else:
        print("interrupted before any call was placed")


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, options)))
