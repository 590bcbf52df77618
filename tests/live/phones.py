"""SIP phones that are called: one SIPp is a whole exchange, and the number says what the phone does."""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import FailTest

from benchmarks.harness.ports import free_port, free_udp_block
from benchmarks.harness.waiting import wait_until
from tests.live.asterisk import Asterisk
from tests.live.recordings import Recording
from tests.live.rtp import RtpCapture, speech_of_pcap

__all__ = ["BUSY", "CONGESTED", "DECLINES", "HANGS_UP", "RINGS", "RINGS_FIRST", "SPEAKS", "UNKNOWN", "Exchange"]

CALLS = 50
"""How many calls have RTP ports of their own."""

SPEAKS = "200"
"""Rings for a moment, answers, speaks (G.711 a-law, 7 s), and waits to be hung up on."""
RINGS_FIRST = "201"
"""Rings for a second before it does so."""
HANGS_UP = "202"
"""Answers, speaks for 3 s, and hangs up."""
RINGS = "180"
"""Rings until it is given up."""
UNKNOWN = "404"
BUSY = "486"
CONGESTED = "503"
DECLINES = "603"

RESPONSES = {UNKNOWN: "Not Found", BUSY: "Busy Here", CONGESTED: "Service Unavailable", DECLINES: "Decline"}

RINGING_MS = {SPEAKS: 100, RINGS_FIRST: 1000, HANGS_UP: 100}
SHORT_MS = 3000

_BRANCHES = (SPEAKS, RINGS_FIRST, HANGS_UP, RINGS, *RESPONSES)

_OWN = """\
      [last_Via:]
      [last_From:]
      [last_To:];tag=[pid]T[call_number]
      [last_Call-ID:]
      [last_CSeq:]
      Contact: <sip:phone@[local_ip]:[local_port]>
"""
_LAST = """\
      [last_Via:]
      [last_From:]
      [last_To:]
      [last_Call-ID:]
      [last_CSeq:]
      Content-Length: 0
"""
_ANSWER = """\
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=phone 1 1 IN IP[media_ip_type] [media_ip]
      s=-
      c=IN IP[media_ip_type] [media_ip]
      t=0 0
      m=audio [auto_media_port] RTP/AVP 8 101
      a=rtpmap:8 PCMA/8000
      a=rtpmap:101 telephone-event/8000
      a=fmtp:101 0-11,16
"""
_BYE = """
  <send retrans="500"><![CDATA[

      BYE [$contact] SIP/2.0
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: [$to];tag=[pid]T[call_number]
      To: [$from]
      [last_Call-ID:]
      CSeq: 1 BYE
      Max-Forwards: 70
      Content-Length: 0

  ]]></send>
  <recv response="200"/>
"""


def _send(first_line: str, headers: str = _LAST, retrans: bool = False) -> str:
    again = ' retrans="500"' if retrans else ""
    return f"  <send{again}><![CDATA[\n\n      SIP/2.0 {first_line}\n{headers}\n  ]]></send>\n"


def _log(what: str) -> str:
    return f'  <nop><action><log message="{what} [$number]"/></action></nop>\n'


def _label(name: str) -> str:
    return f'  <label id="{name}"/>\n'


def _receive(request: str) -> str:
    return f'  <recv request="{request}"/>\n'


def _begin() -> str:
    """The INVITE, and the way to what the number says."""
    kept = "".join(
        f'    <ereg regexp="{pattern}" search_in="hdr" header="{header}:" assign_to="{header.lower()}"/>\n'
        for header, pattern in [("From", ".*"), ("To", "[^ ].*"), ("CSeq", "[0-9]+"), ("Contact", "sip:[^&gt;]+")]
    )
    called = '    <ereg regexp="sip:([^@]+)@" search_in="hdr" header="To:" assign_to="all,number"/>\n'
    tests = "".join(
        f'    <strcmp assign_to="is" variable="number" value="{number}"/>\n'
        f'    <test assign_to="is{number}" variable="is" compare="equal" value="0"/>\n'
        for number in _BRANCHES
    )
    ways = "".join(f'  <nop next="{number}" test="is{number}"/>\n' for number in _BRANCHES)
    return (
        f'  <recv request="INVITE">\n   <action>\n{kept}{called}{tests}   </action>\n  </recv>\n'
        '  <Reference variables="all"/>\n' + _log("called") + ways + '  <nop next="404"/>\n'
    )


def _answers(number: str, then: str) -> str:
    return (
        _label(number)
        + _send("180 Ringing", _OWN + "      Content-Length: 0\n")
        + f'  <pause milliseconds="{RINGING_MS[number]}"/>\n'
        + _send("200 OK", _OWN + _ANSWER, retrans=True)
        + _receive("ACK")
        + _log("answered")
        + '  <nop><action><exec play_pcap_audio="pcap/g711a.pcap"/></action></nop>\n'
        + then
        + '  <nop next="over"/>\n'
    )


def _waits() -> str:
    return _receive("BYE") + _send("200 OK") + _log("hung up on")


def _hangs_up() -> str:
    return f'  <pause milliseconds="{SHORT_MS}"/>\n' + _BYE + _log("hung up")


def _rings() -> str:
    given_up = _OWN.replace("[last_CSeq:]", "CSeq: [$cseq] INVITE") + "      Content-Length: 0\n"
    return (
        _label(RINGS)
        + _send("180 Ringing", _OWN + "      Content-Length: 0\n")
        + _log("ringing")
        + _receive("CANCEL")
        + _send("200 OK", _OWN + "      Content-Length: 0\n")
        + _send("487 Request Terminated", given_up, retrans=True)
        + _receive("ACK")
        + _log("cancelled")
        + '  <nop next="over"/>\n'
    )


def _refuses(number: str) -> str:
    return (
        _label(number)
        + _send(f"{number} {RESPONSES[number]}", _OWN + "      Content-Length: 0\n", retrans=True)
        + _receive("ACK")
        + _log("refused")
        + '  <nop next="over"/>\n'
    )


def scenario() -> str:
    """All phones in one."""
    return (
        '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="exchange">\n'
        + _begin()
        + _answers(SPEAKS, _waits())
        + _answers(RINGS_FIRST, _waits())
        + _answers(HANGS_UP, _hangs_up())
        + _rings()
        + "".join(_refuses(number) for number in RESPONSES)
        + _label("over")
        + "</scenario>\n"
    )


class Exchange:
    """The phones of an Asterisk's trunk ``trunk``: any number of calls, until it is stopped."""

    def __init__(self, asterisk: Asterisk) -> None:
        self._asterisk = asterisk
        self.directory = Path(tempfile.mkdtemp(prefix="exchange-", dir=asterisk.directory))
        # The scenario names the file to play by this folder.
        (self.directory / "pcap").symlink_to("/usr/share/sip-tester")
        (self.directory / "exchange.xml").write_text(scenario())
        media_port = free_udp_block(4 * CALLS)
        self._capture = RtpCapture(media_port, 4 * CALLS)
        self._process: subprocess.Popen[bytes] = asterisk.start_inside(
            'cd "$1" && shift && exec sipp "$@"',
            f"{asterisk.inside}/{self.directory.name}",
            *["-sf", "exchange.xml", "-i", "127.0.0.1", "-p", str(asterisk.trunk_port), "-mi", "127.0.0.1"],
            *["-mp", str(media_port), "-nostdin", "-trace_err", "-error_file", "errors.log"],
            *["-trace_logs", "-log_file", "said.log", "-trace_msg", "-message_file", "messages.log"],
            # Its remote control would listen on all interfaces.
            *["-ci", "127.0.0.1", "-cp", str(free_port(socket.SOCK_DGRAM))],
            output=self.directory / "output.log",
        )
        wait_until("the exchange listens", lambda: self._listens(asterisk.trunk_port), 5)

    def _listens(self, port: int) -> bool:
        if self._process.poll() is not None:
            raise FailTest(f"SIPp ended with code {self._process.returncode}: {self._told()}")
        return f"0100007F:{port:04X} " in Path("/proc/net/udp").read_text()

    def _told(self) -> str:
        names = ("errors.log", "output.log")
        return "\n".join(self._read(name)[-2000:] for name in names)

    def _read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """Be gone: calls are not answered any more, nor hung up."""
        self._process.kill()
        self._process.wait()
        self._capture.stop()

    def heard(self) -> list[Recording]:
        """What each phone that answered heard, in the order of their calls."""
        return self._capture.recordings()

    def speech(self) -> Recording:
        """What each phone that answers says."""
        return speech_of_pcap(self._asterisk.root / "usr/share/sip-tester/g711a.pcap")

    def count(self, what: str) -> int:
        """How often the phones told something so far, such as ``cancelled 180`` or ``answered``."""
        return len(re.findall(rf"\b{re.escape(what)}\b", self._read("said.log")))

    def wait_for(self, what: str, count: int = 1, timeout_s: float = 5) -> None:
        """Wait until the phones told something so often."""
        try:
            wait_until(f"{count} x {what!r} from the phones", lambda: self.count(what) >= count, timeout_s)
        except FailTest as error:
            raise FailTest(f"{error}; they told: {self._read('said.log')!r} {self._told()}") from None
