"""The audio in RTP packets (G.711 A-law): what Asterisk sends to phones, and what SIPp plays from a file.

MixMonitor() drops audio that its thread is late for (``audiohook.c``: ``ast_audiohook_write_frame()``), so on a busy
machine its recording lacks what the phone heard. The kernel keeps packets until they are read.
"""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np

from rapida_twisted.audio.g711 import alaw_to_slin
from tests.live.recordings import Recording

__all__ = ["RtpCapture", "speech_of_pcap"]

ALAW = 8
"""The payload type."""
ETHERNET_BYTES, UDP_BYTES, RTP_BYTES = 14, 8, 12
PCAP_HEADER_BYTES, PCAP_RECORD_BYTES = 24, 16


class RtpCapture:
    """Keeps the audio of all packets to a range of UDP ports, whether or not a program reads them. Needs root.

    :param first_port: of the phones' media.
    :param ports: how many.
    """

    def __init__(self, first_port: int, ports: int) -> None:
        self._ports = range(first_port, first_port + ports)
        self._heard: defaultdict[int, bytearray] = defaultdict(bytearray)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopped.is_set():
            try:
                packet = self._socket.recv(4096)
            except TimeoutError:
                continue
            header = (packet[0] & 0x0F) * 4
            port = int.from_bytes(packet[header + 2 : header + 4], "big")
            if port in self._ports:
                self._heard[port] += _alaw(packet[header + UDP_BYTES :])

    def recordings(self) -> list[Recording]:
        """What each phone heard so far, in the order in which the calls came."""
        return [_recording(bytes(heard)) for heard in list(self._heard.values()) if heard]

    def stop(self) -> None:
        """Keep nothing more."""
        self._stopped.set()
        self._thread.join()
        self._socket.close()


def speech_of_pcap(path: Path) -> Recording:
    """The audio that SIPp plays from a file."""
    data, at, speech = path.read_bytes(), PCAP_HEADER_BYTES, b""
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "little")
        at += PCAP_RECORD_BYTES
        frame = data[at + ETHERNET_BYTES : at + size]
        speech += _alaw(frame[(frame[0] & 0x0F) * 4 + UDP_BYTES :])
        at += size
    return _recording(speech)


def _alaw(packet: bytes) -> bytes:
    """The payload of an RTP packet with A-law; empty for any other packet."""
    is_audio = len(packet) > RTP_BYTES and packet[0] >> 6 == 2 and packet[1] & 0x7F == ALAW
    return packet[RTP_BYTES + 4 * (packet[0] & 0x0F) :] if is_audio else b""


def _recording(alaw: bytes) -> Recording:
    return Recording(np.frombuffer(alaw_to_slin(alaw), "<i2") / 32768.0, 8000)
