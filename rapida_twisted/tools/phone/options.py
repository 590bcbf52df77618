"""The command line of ``rapida-phone``.

What reads sound, CA files and keys is imported for a command line that is right: ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import UUID

from rapida_twisted.audio.formats import ULAW, AudioFormat
from rapida_twisted.errors import RapidaError
from rapida_twisted.net.addresses import parse_host_port
from rapida_twisted.tools.api_key import find_api_key
from rapida_twisted.tools.command_line import (
    DEFAULT_URL,
    SHELLS,
    CommandLine,
    add_key_file,
    checked_url,
    completion,
    http_url,
    whole_number,
)  # fmt: skip
from rapida_twisted.tools.phone.plan import CallPlan, TimedDigit
from rapida_twisted.wire.audiosocket import DIGITS
from rapida_twisted.wire.chan_websocket import ControlForm

if TYPE_CHECKING:
    from rapida_twisted.tools.phone.sound import Sound

__all__ = ["PhoneOptions", "parse_options"]

PACKET_TIMES_MS = (10, 20, 30, 60)
TRANSPORTS = ("audiosocket", "websocket")
CODECS = ("ulaw", "alaw", "slin", "slin16")
CONTROL_FORMS = {"plain": ControlForm.PLAIN, "json": ControlForm.JSON}
G711_NOISE = 32
"""The smallest noise that G.711 keeps in a loud tone; still inaudible."""
MICROPHONE_S = 3600.0
"""How long a call with a microphone lasts without a given duration."""
WEBSOCKET_PATH = "/v1/talk/asterisk/ctx/{}"

EPILOG = (
    "The figures: over AudioSocket a frame is missing when the audio falls behind for good, and late when the audio"
    " catches up again. Over WebSocket the phone is like Asterisk's chan_websocket: it plays one frame each 20 ms from"
    " a queue. No frame is late there; frames are missing in a gap, when the queue runs empty in the middle of speech."
    " 'ahead' is the queued audio; XOFF counts how often the queue was nearly full. A silence of a second, or after a"
    " mark or a flush, is a pause and no gap; --save keeps both. The API key comes from RAPIDA_API_KEY or a key file,"
    " never from the command line; with the scope 'read' the phone also reads the server's record of the call. Exit"
    " codes: 0 all calls were whole, 1 a call was not (a sentence says why), 2 wrong command line, 130 interrupted."
)


@dataclass(frozen=True, kw_only=True)
class PhoneOptions:
    """The checked command line."""

    plan: CallPlan
    api_key: str
    """Empty for a program without registration."""
    bare: bool = False
    """Whether the call goes to a program without registration."""
    bare_uuid: UUID | None = None
    """Its UUID; None: a random one."""
    http_url: str = DEFAULT_URL
    websocket_url: str = ""
    """Of the media; ``{}`` stands for the contextId."""
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
        _check_combinations(arguments)
        if arguments.save is not None:
            _check_writable(arguments.save, arguments.calls)
        bare = arguments.bare_uuid is not None
        return PhoneOptions(
            plan=_plan(arguments),
            api_key="" if bare else find_api_key(arguments.key_file, environ=os.environ),
            bare=bare,
            bare_uuid=arguments.bare_uuid or None,
            http_url=arguments.http,
            websocket_url=_websocket_url(arguments),
            audiosocket=arguments.audiosocket,
            transport="websocket" if arguments.websocket else arguments.transport,
            format=AudioFormat.from_asterisk(arguments.codec or "ulaw"),
            form=CONTROL_FORMS[arguments.control or "plain"],
            trust=_trust(arguments),
            assistant_id=arguments.assistant,
            caller=arguments.caller,
            called=arguments.called,
            packet_ms=arguments.ptime,
            calls=arguments.calls,
            rate=arguments.rate,
            as_json=arguments.json,
        )
    except OSError as error:
        parser.error(f"cannot read {error.filename} ({error.strerror})" if error.filename else str(error))
    except (ValueError, RapidaError) as error:
        parser.error(str(error))


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, *__: Any) -> None:
        print(completion(parser, shell))
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="rapida-phone",
        version=True,
        description="A telephone without an Asterisk: registers a call at a rapida-media server, sends and receives"
        " audio, and reports the quality of the call.",
        epilog=EPILOG,
    )
    sound = parser.add_argument_group("audio to send").add_mutually_exclusive_group()
    sound.add_argument("--say", metavar="FILE", help="a WAV file, in real time; then silence")
    sound.add_argument("--tone", metavar="HZ", type=_tone_hz, help="a steady tone")
    sound.add_argument("--mute", action="store_true", help="send no audio at all [default: frames of silence]")
    sound.add_argument(
        "--mic",
        metavar="DEVICE",
        nargs="?",
        const="",
        help="talk: the microphone and the speaker, for an hour or --duration (wear headphones) [default: the usual"
        " devices]",
    )
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
    parser.add_argument(
        "--calls", metavar="N", type=whole_number(1, 10_000), default=1, help="place N calls [default: 1]"
    )
    parser.add_argument(
        "--rate", metavar="R", type=_positive, default=10.0, help="calls started a second [default: 10]"
    )
    parser.add_argument("--ptime", type=int, choices=PACKET_TIMES_MS, default=20, help="packet time (ms) [default: 20]")
    parser.add_argument("--assistant", metavar="ID", default="123456789", help="assistant [default: 123456789]")
    parser.add_argument("--from", metavar="NUMBER", dest="caller", default="", help="the caller's number")
    parser.add_argument("--to", metavar="NUMBER", dest="called", default="", help="the dialled number")
    parser.add_argument(
        "--tolerate",
        metavar="PERCENT",
        type=_percent,
        default=CallPlan.tolerate_percent,
        help="how many of a call's frames (of 100 at least) may be missing or late"
        f" [default: {CallPlan.tolerate_percent:g}]",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    parser.add_argument(
        "--completion", choices=SHELLS, action=_Completion, help="print the script that completes this command line"
    )
    _add_server_options(parser.add_argument_group("the server"))
    return parser


def _add_server_options(group: Any) -> None:
    group.add_argument(
        "--http",
        metavar="URL",
        type=http_url,
        default=DEFAULT_URL,
        help=f"address for registration and for WebSocket media (http: ws, https: wss) [default: {DEFAULT_URL}]",
    )
    group.add_argument(
        "--ca", metavar="FILE", type=Path, help="the CA to trust for https and wss (PEM) [default: the system's]"
    )
    add_key_file(group)
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
    group.add_argument(
        "--bare-uuid",
        metavar="UUID",
        nargs="?",
        const=False,
        type=_uuid,
        help="call a program that has no registration, at --audiosocket or --websocket [default UUID: a random one]",
    )
    group.add_argument(
        "--websocket",
        metavar="URL",
        type=lambda text: checked_url(text, ("ws", "wss"), "ws://127.0.0.1:9000/media", query=True),
        help="with --bare-uuid: the program's WebSocket; contextId, from and to are added to its query",
    )
    group.add_argument("--codec", choices=CODECS, help="codec over WebSocket [default: ulaw]")
    forms = tuple(CONTROL_FORMS)
    group.add_argument("--control", choices=forms, help="form of WebSocket control messages [default: plain]")


def _check_combinations(arguments: argparse.Namespace) -> None:
    """Refuse options without an effect, and those that exclude one another.

    :raises ValueError: there are some.
    """
    bare, is_websocket = arguments.bare_uuid is not None, arguments.websocket or arguments.transport == "websocket"
    for option in ("codec", "control"):
        if getattr(arguments, option) and not is_websocket:
            raise ValueError(f"--{option} needs --transport websocket")
    if arguments.websocket and not bare:
        raise ValueError("--websocket needs --bare-uuid: a call that is registered goes to --http")
    if bare and is_websocket and not arguments.websocket:
        raise ValueError("--bare-uuid over WebSocket needs the program's address (--websocket)")
    if arguments.ca is not None and not (arguments.websocket or arguments.http).startswith(("https:", "wss:")):
        raise ValueError("--ca needs an https address (--http), or a wss one (--websocket)")
    if arguments.calls > 1 and (arguments.bare_uuid or arguments.mic is not None):
        raise ValueError(f"{'--mic' if arguments.mic is not None else 'a UUID'} is for one call: omit it, or --calls")


def _check_writable(path: Path, calls: int) -> None:
    """Make sure that the files of :meth:`CallPlan.numbered` can be written.

    :raises ValueError: one cannot.
    """
    plan = CallPlan(None, save=path)  # type: ignore[arg-type]
    for number in range(1, calls + 1):
        file = plan.numbered(number if calls > 1 else None).save
        assert file is not None
        is_new = not file.exists()
        try:
            # O_NONBLOCK: a FIFO without a reader is refused instead of waited for.
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK))
        except OSError as error:
            raise ValueError(f"--save: cannot write {file} ({error.strerror})") from None
        if is_new:
            file.unlink()


def _plan(arguments: argparse.Namespace) -> CallPlan:
    sound, duration_s, headset = None, arguments.duration, None
    if arguments.mic is not None:
        from rapida_twisted.tools.phone.microphone import Headset

        sound = headset = Headset(arguments.mic, arguments.ptime)
        duration_s = duration_s or MICROPHONE_S
    return CallPlan(
        sound or _sound(arguments), arguments.digits, duration_s, arguments.save, arguments.tolerate, headset
    )


def _sound(arguments: argparse.Namespace) -> Sound:
    from rapida_twisted.tools.phone.sound import MuteSound, ToneSound, read_wav, silence

    if arguments.mute:
        return MuteSound()
    if arguments.tone is not None:
        is_websocket = arguments.websocket or arguments.transport == "websocket"
        is_g711 = is_websocket and arguments.codec in (None, "ulaw", "alaw")
        return ToneSound(arguments.tone, arguments.ptime, G711_NOISE if is_g711 else 1)
    return read_wav(Path(arguments.say), arguments.ptime) if arguments.say is not None else silence(arguments.ptime)


def _trust(arguments: argparse.Namespace) -> Any:
    if arguments.ca is None:
        return None
    from rapida_twisted.net.tls import read_ca

    return read_ca(arguments.ca)


def _websocket_url(arguments: argparse.Namespace) -> str:
    if not arguments.websocket:
        return f"ws{arguments.http.removeprefix('http')}{WEBSOCKET_PATH}"
    # As the assistant "bridge" calls such a program.
    query = urlencode({"from": arguments.caller, "to": arguments.called})
    return f"{arguments.websocket}{'&' if '?' in arguments.websocket else '?'}contextId={{}}&{query}"


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


def _percent(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"expected a percentage from 0 to 100, not {text!r}")
    return number


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a UUID, not {text!r}") from None


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


def _host_port(word: str) -> tuple[str, int]:
    try:
        return parse_host_port(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, such as 127.0.0.1:4573, not {word!r}") from None
