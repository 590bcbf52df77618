"""SIP phones: SIPp, run from Asterisk's own folder."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import FailTest

from benchmarks.harness.ports import free_port, free_udp_block
from tests.live.asterisk import Asterisk

STOCK = "uac_pcap"
"""SIPp's own scenario: G.711 a-law speech in packets of 30 ms for 7 s, after 8 s the digit 1, after 9 s it hangs up."""
STOCK_SPEECH_S = 7.08

_HEADERS = """\
      Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
      From: phone <sip:phone@[local_ip]:[local_port]>;tag=[pid]phone[call_number]
      To: <sip:[service]@[remote_ip]:[remote_port]>{to}
      Call-ID: [call_id]
      CSeq: {number} {method}
      Contact: <sip:phone@[local_ip]:[local_port]>
      Max-Forwards: 70
"""
_REQUEST = """
  <send{retrans}><![CDATA[

      {method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0
{headers}{body}
  ]]></send>
"""
_EMPTY_BODY = """\
      Content-Length: 0
"""
_OFFER = """\
      Content-Type: application/sdp
      Content-Length: [len]

      v=0
      o=phone 1 1 IN IP[media_ip_type] [media_ip]
      s=-
      c=IN IP[media_ip_type] [media_ip]
      t=0 0
      m=audio [media_port] RTP/AVP 8 101
      a=rtpmap:8 PCMA/8000
      a=rtpmap:101 telephone-event/8000
      a=fmtp:101 0-11,16
"""
_RECEIVE_BYE = """
  <recv request="BYE"/>
  <send><![CDATA[

      SIP/2.0 200 OK
      [last_Via:]
      [last_From:]
      [last_To:]
      [last_Call-ID:]
      [last_CSeq:]
      Content-Length: 0

  ]]></send>
"""


def _request(method: str, number: int, to: str = "[peer_tag_param]", body: str = _EMPTY_BODY) -> str:
    headers = _HEADERS.format(to=to, number=number, method=method)
    # An ACK is never answered, so never sent again.
    retrans = "" if method == "ACK" else ' retrans="500"'
    return _REQUEST.format(retrans=retrans, method=method, headers=headers, body=body)


def pause(seconds: float) -> str:
    """A step: do nothing for a time. What is being played goes on."""
    return f'  <pause milliseconds="{round(seconds * 1000)}"/>\n'


def speak() -> str:
    """A step: start to play the speech of the stock scenario."""
    return '  <nop><action><exec play_pcap_audio="pcap/g711a.pcap"/></action></nop>\n'


def press(digit: str) -> str:
    """A step: press a key, sent as RFC 4733 events."""
    name = {"#": "pound", "*": "star"}.get(digit, digit)
    return f'  <nop><action><exec play_pcap_audio="pcap/dtmf_2833_{name}.pcap"/></action></nop>\n'


def scenario(*steps: str, hangs_up: bool = True) -> str:
    """A phone that calls, does the steps, then hangs up, or waits for the other side to do so."""
    return (
        '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="phone">\n'
        + _request("INVITE", 1, to="", body=_OFFER)
        + '  <recv response="100" optional="true"/>\n  <recv response="180" optional="true"/>\n'
        + '  <recv response="200"/>\n'
        + _request("ACK", 1)
        + "".join(steps)
        + (_request("BYE", 2) + '  <recv response="200"/>\n' if hangs_up else _RECEIVE_BYE)
        + "</scenario>\n"
    )


class Sipp:
    """One run of SIPp: a call, or several, started at once.

    :param what: a scenario's text, or :data:`STOCK`.
    """

    def __init__(self, asterisk: Asterisk, what: str = STOCK, number: str = "100", calls: int = 1) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sipp-", dir=asterisk.directory))
        # The scenarios name the files to play by this folder.
        (self.directory / "pcap").symlink_to("/usr/share/sip-tester")
        if what == STOCK:
            chosen = ["-sn", STOCK]
        else:
            (self.directory / "phone.xml").write_text(what)
            chosen = ["-sf", "phone.xml"]
        self._process = asterisk.start_inside(
            'cd "$1" && shift && exec sipp "$@"',
            f"{asterisk.inside}/{self.directory.name}",
            *[*chosen, "-s", number, f"127.0.0.1:{asterisk.sip_port}", "-i", "127.0.0.1", "-mi", "127.0.0.1"],
            # Its remote control would listen on all interfaces.
            *["-ci", "127.0.0.1", "-cp", str(free_port(socket.SOCK_DGRAM))],
            *["-p", str(free_port(socket.SOCK_DGRAM)), "-mp", str(free_udp_block(4 * calls))],
            *["-l", str(calls), "-m", str(calls), "-r", str(calls), "-nostdin", "-trace_err"],
            output=self.directory / "output.log",
        )

    def wait(self, timeout_s: float) -> None:
        """Wait for its end; every call must have gone as the scenario says."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise FailTest(f"SIPp is not done after {timeout_s:g} s: {self._said()}") from None
        if code != 0:
            raise FailTest(f"SIPp ended with code {code}: {self._said()}")

    def _said(self) -> str:
        errors = [path.read_text(errors="replace") for path in self.directory.glob("*errors.log")]
        return "\n".join(errors) or (self.directory / "output.log").read_text(errors="replace")[-2000:]
