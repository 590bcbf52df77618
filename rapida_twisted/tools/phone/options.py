"""The command line of ``rapida-phone``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rapida_twisted.audio.formats import ULAW, AudioFormat
from rapida_twisted.errors import RapidaError
from rapida_twisted.net.addresses import parse_host_port
from rapida_twisted.net.tls import read_ca
from rapida_twisted.tools.api_key import find_api_key
from rapida_twisted.tools.phone.call import CallPlan, TimedDigit
from rapida_twisted.tools.phone.sound import MuteSound, Sound, ToneSound, read_wav, silence
from rapida_twisted.wire.audiosocket import DIGITS
from rapida_twisted.wire.chan_websocket import ControlForm

__all__ = ["PhoneOptions", "parse_options"]

PACKET_TIMES_MS = (10, 20, 30, 60)
TRANSPORTS = ("audiosocket", "websocket")
CODECS = ("ulaw", "alaw", "slin", "slin16")
CONTROL_FORMS = {"plain": ControlForm.PLAIN, "json": ControlForm.JSON}
G711_NOISE = 32
"""What G.711 does not round off a loud tone, and is still not heard."""

EPILOG = (
    "The figures: over AudioSocket a frame is missing when audio stays behind the time, and late when it catches up"
    " again. Over WebSocket the phone is Asterisk's chan_websocket with its queue, from which one frame is heard each"
    " 20 ms: nothing is late there, and what is missing is gaps, where the queue ran empty in the middle of speech;"
    " 'ahead' is how much waited in it, XOFF how often it was nearly full. A silence of a second, or after a mark or a"
    " flush, is a pause and no gap; --save keeps both. The API key is taken from RAPIDA_API_KEY or a key file, never"
    " from the command line. Exit codes: 0 all calls went well, 1 some call did not, 2 the command line can't be used."
)


@dataclass(frozen=True, kw_only=True)
class PhoneOptions:
    """What the command line said, checked."""

    plan: CallPlan
    api_key: str
    http_url: str = "http://127.0.0.1:8080"
    audiosocket: tuple[str, int] = ("127.0.0.1", 4573)
    transport: str = "audiosocket"
    format: AudioFormat = ULAW
    """Of the audio over WebSocket."""
    form: ControlForm = ControlForm.PLAIN
    """Of the control messages over WebSocket."""
    trust: Any = None
    """A trust root of Twisted's for https and wss; None: the system's."""
    assistant_id: str = "123456789"
    caller: str = ""
    called: str = ""
    packet_ms: int = 20
    calls: int = 1
    rate: float = 10.0
    as_json: bool = False


def parse_options(argv: Sequence[str]) -> PhoneOptions:
    """The options of a command line. A wrong one ends the program with exit code 2 and one sentence."""
    parser = _parser()
    words = parser.parse_args(argv)
    try:
        _check_transport(words)
        return PhoneOptions(
            plan=CallPlan(_sound(words), words.digits, words.duration, words.save),
            api_key=find_api_key(words.key_file, environ=os.environ),
            http_url=words.http,
            audiosocket=words.audiosocket,
            transport=words.transport,
            format=AudioFormat.from_asterisk(words.codec or "ulaw"),
            form=CONTROL_FORMS[words.control or "plain"],
            trust=None if words.ca is None else read_ca(words.ca),
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
        epilog=EPILOG,
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
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    _add_where(parser.add_argument_group("where to"))
    return parser


def _add_where(group: Any) -> None:
    """The options that lead to the server."""
    group.add_argument(
        "--http",
        metavar="URL",
        type=_url,
        default="http://127.0.0.1:8080",
        help="where calls are registered, and where WebSocket media goes: http as ws, https as wss"
        " [default: http://127.0.0.1:8080]",
    )
    group.add_argument(
        "--ca", metavar="FILE", type=Path, help="the CA to trust for https and wss (PEM) [default: the system's]"
    )
    group.add_argument(
        "--key-file", metavar="FILE", type=Path, help="file that holds the API key [default: the server's own]"
    )
    group.add_argument(
        "--transport", choices=TRANSPORTS, default="audiosocket", help="what carries the media [default: audiosocket]"
    )
    group.add_argument(
        "--audiosocket",
        metavar="HOST:PORT",
        type=_host_port,
        default=("127.0.0.1", 4573),
        help="where AudioSocket media goes [default: 127.0.0.1:4573]",
    )
    group.add_argument("--codec", choices=CODECS, help="of the audio over WebSocket [default: ulaw]")
    group.add_argument("--control", choices=CONTROL_FORMS, help="form of WebSocket control messages [default: plain]")


def _check_transport(words: argparse.Namespace) -> None:
    """Options that would do nothing are mistakes.

    :raises ValueError: there is one.
    """
    if words.transport != "websocket":
        for option in ("codec", "control"):
            if getattr(words, option):
                raise ValueError(f"--{option} is for --transport websocket")
    if words.ca is not None and not words.http.startswith("https:"):
        raise ValueError("--ca is for an https address (--http)")


def _sound(words: argparse.Namespace) -> Sound:
    if words.mute:
        return MuteSound()
    if words.tone is not None:
        is_g711 = words.transport == "websocket" and words.codec in (None, "ulaw", "alaw")
        return ToneSound(words.tone, words.ptime, G711_NOISE if is_g711 else 1)
    return read_wav(Path(words.say), words.ptime) if words.say is not None else silence(words.ptime)


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
    try:
        return parse_host_port(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, such as 127.0.0.1:4573, not {word!r}") from None
