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
"""The smallest noise that G.711 keeps in a loud tone; still inaudible."""

EPILOG = (
    "The figures: over AudioSocket a frame is missing when the audio falls behind for good, and late when the audio"
    " catches up again. Over WebSocket the phone is like Asterisk's chan_websocket: it plays one frame each 20 ms from"
    " a queue. No frame is late there; frames are missing in a gap, when the queue runs empty in the middle of speech."
    " 'ahead' is the queued audio; XOFF counts how often the queue was nearly full. A silence of a second, or after a"
    " mark or a flush, is a pause and no gap; --save keeps both. The API key comes from RAPIDA_API_KEY or a key file,"
    " never from the command line. Exit codes: 0 all calls went well, 1 a call failed, 2 wrong command line."
)


@dataclass(frozen=True, kw_only=True)
class PhoneOptions:
    """The checked command line."""

    plan: CallPlan
    api_key: str
    http_url: str = "http://127.0.0.1:8080"
    audiosocket: tuple[str, int] = ("127.0.0.1", 4573)
    transport: str = "audiosocket"
    format: AudioFormat = ULAW
    """The audio format over WebSocket."""
    form: ControlForm = ControlForm.PLAIN
    """The form of control messages over WebSocket."""
    trust: Any = None
    """Twisted's trust root for https and wss; None: the system's."""
    assistant_id: str = "123456789"
    caller: str = ""
    called: str = ""
    packet_ms: int = 20
    calls: int = 1
    rate: float = 10.0
    as_json: bool = False


def parse_options(argv: Sequence[str]) -> PhoneOptions:
    """The options of a command line. A wrong one exits with code 2 and one sentence."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        _check_transport(arguments)
        return PhoneOptions(
            plan=CallPlan(_sound(arguments), arguments.digits, arguments.duration, arguments.save),
            api_key=find_api_key(arguments.key_file, environ=os.environ),
            http_url=arguments.http,
            audiosocket=arguments.audiosocket,
            transport=arguments.transport,
            format=AudioFormat.from_asterisk(arguments.codec or "ulaw"),
            form=CONTROL_FORMS[arguments.control or "plain"],
            trust=None if arguments.ca is None else read_ca(arguments.ca),
            assistant_id=arguments.assistant,
            caller=arguments.caller,
            called=arguments.called,
            packet_ms=arguments.ptime,
            calls=arguments.calls,
            rate=arguments.rate,
            as_json=arguments.json,
        )
    except (OSError, ValueError, RapidaError) as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rapida-phone",
        description="A telephone without an Asterisk: registers a call at a rapida-media server, sends and receives"
        " audio, and reports the quality of the call.",
        epilog=EPILOG,
    )
    sound = parser.add_argument_group("audio to send").add_mutually_exclusive_group()
    sound.add_argument("--say", metavar="FILE", help="a WAV file, in real time; then silence")
    sound.add_argument("--tone", metavar="HZ", type=_tone_hz, help="a steady tone")
    sound.add_argument("--mute", action="store_true", help="send no audio at all [default: frames of silence]")
    parser.add_argument(
        "--digits", metavar="D@S,...", type=_digits, default=(), help="keys to press, and when: 1@2.5,#@6"
    )
    parser.add_argument(
        "--save", metavar="FILE", type=Path, help="record the received audio as WAV (several calls: FILE-N)"
    )
    parser.add_argument(
        "--duration",
        metavar="S",
        type=_positive,
        help="hang up after S seconds [default: 2 s after the WAV file and the digits; at most 60 s]",
    )
    parser.add_argument("--calls", metavar="N", type=_count, default=1, help="place N calls [default: 1]")
    parser.add_argument(
        "--rate", metavar="R", type=_positive, default=10.0, help="calls started a second [default: 10]"
    )
    parser.add_argument("--ptime", type=int, choices=PACKET_TIMES_MS, default=20, help="packet time (ms) [default: 20]")
    parser.add_argument("--assistant", metavar="ID", default="123456789", help="assistant [default: 123456789]")
    parser.add_argument("--from", metavar="NUMBER", dest="caller", default="", help="the caller's number")
    parser.add_argument("--to", metavar="NUMBER", dest="called", default="", help="the dialled number")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    _add_server_options(parser.add_argument_group("the server"))
    return parser


def _add_server_options(group: Any) -> None:
    group.add_argument(
        "--http",
        metavar="URL",
        type=_url,
        default="http://127.0.0.1:8080",
        help="address for registration and for WebSocket media (http: ws, https: wss) [default: http://127.0.0.1:8080]",
    )
    group.add_argument(
        "--ca", metavar="FILE", type=Path, help="the CA to trust for https and wss (PEM) [default: the system's]"
    )
    group.add_argument("--key-file", metavar="FILE", type=Path, help="file of the API key [default: the server's own]")
    group.add_argument(
        "--transport", choices=TRANSPORTS, default="audiosocket", help="transport of the media [default: audiosocket]"
    )
    group.add_argument(
        "--audiosocket",
        metavar="HOST:PORT",
        type=_host_port,
        default=("127.0.0.1", 4573),
        help="address for AudioSocket media [default: 127.0.0.1:4573]",
    )
    group.add_argument("--codec", choices=CODECS, help="codec over WebSocket [default: ulaw]")
    group.add_argument("--control", choices=CONTROL_FORMS, help="form of WebSocket control messages [default: plain]")


def _check_transport(arguments: argparse.Namespace) -> None:
    """Refuse options without an effect.

    :raises ValueError: there is one.
    """
    if arguments.transport != "websocket":
        for option in ("codec", "control"):
            if getattr(arguments, option):
                raise ValueError(f"--{option} needs --transport websocket")
    if arguments.ca is not None and not arguments.http.startswith("https:"):
        raise ValueError("--ca needs an https address (--http)")


def _sound(arguments: argparse.Namespace) -> Sound:
    if arguments.mute:
        return MuteSound()
    if arguments.tone is not None:
        is_g711 = arguments.transport == "websocket" and arguments.codec in (None, "ulaw", "alaw")
        return ToneSound(arguments.tone, arguments.ptime, G711_NOISE if is_g711 else 1)
    return read_wav(Path(arguments.say), arguments.ptime) if arguments.say is not None else silence(arguments.ptime)


def _tone_hz(text: str) -> float:
    hertz = _number(text)
    if not 1 <= hertz <= 3999:
        raise argparse.ArgumentTypeError(f"a telephone carries tones from 1 to 3999 Hz, not {text!r}")
    return hertz


def _positive(text: str) -> float:
    number = _number(text)
    if not 0 < number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return number


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 10000, not {text!r}")
    return int(text)


def _digits(text: str) -> tuple[TimedDigit, ...]:
    timed = []
    for part in text.split(","):
        digit, at, when = part.strip().partition("@")
        seconds = _number(when) if at else -1.0
        if len(digit) != 1 or digit.upper() not in DIGITS or not 0 <= seconds <= 86_400:
            raise argparse.ArgumentTypeError(
                f"{part!r} is no digit at a time: expected one of {DIGITS}, @, and seconds, as in 1@2.5"
            )
        timed.append(TimedDigit(seconds, digit.upper()))
    return tuple(timed)


def _number(text: str) -> float:
    """A finite number, or -1."""
    try:
        number = float(text)
    except ValueError:
        return -1.0
    return number if abs(number) < float("inf") else -1.0


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"expected an address such as http://127.0.0.1:8080, not {text!r}")
    return text.rstrip("/")


def _host_port(word: str) -> tuple[str, int]:
    try:
        return parse_host_port(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, such as 127.0.0.1:4573, not {word!r}") from None
