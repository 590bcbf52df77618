"""One hostile call, registered as any other: its peer, or the server that it is bridged to, sends what costs more time
than bytes."""

from __future__ import annotations

import socket
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from uuid import UUID

from benchmarks.attacks.stage import Stage, attack
from benchmarks.harness.ports import free_port
from benchmarks.harness.server import API_KEY

AGAIN_S = 6.0
"""How long the attacker waits until it registers the next call: each call has lines in the log."""
BINARY, TEXT, CONTINUATION, PING = 0x2, 0x1, 0x0, 0x9
MASK = b"\1\2\3\4"
MEDIA_START = b"MEDIA_START channel_id:1.1 format:ulaw optimal_frame_size:160 ptime:20"
UPSTREAM_PORT = free_port()
BRIDGE = (f"9=bridge:ws://127.0.0.1:{UPSTREAM_PORT}/", "*=echo")

Connect = Callable[[Stage, str], socket.socket]
"""Connects a registered call, by its contextId."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """An AudioSocket frame."""
    return bytes((kind,)) + struct.pack("!H", len(payload)) + payload


def message(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bytes = MASK) -> bytes:
    """A WebSocket frame, without a mask if that is empty."""
    size, masked = len(payload), 0x80 if mask else 0
    length = bytes((masked | size,)) if size < 126 else bytes((masked | 126,)) + struct.pack("!H", size)
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes((opcode | 0x80 * fin,)) + length + mask + payload


# Attacks over AudioSocket


@attack("a call's audio changes its rate with each frame of 2 bytes (kinds 0x10 and 0x11)")
def changing_rates(stage: Stage) -> None:
    attack_by_calls(stage, audiosocket, frame(0x10, b"\0\0") + frame(0x11, b"\0\0"))


@attack("a call sends empty frames of audio")
def empty_audio(stage: Stage) -> None:
    attack_by_calls(stage, audiosocket, frame(0x10))


@attack("a call sends error frames")
def error_frames(stage: Stage) -> None:
    attack_by_calls(stage, audiosocket, frame(0xFF, b"\4"))


@attack("a call sends digits")
def digits(stage: Stage) -> None:
    attack_by_calls(stage, audiosocket, frame(0x03, b"1"))


@attack("a call sends ordinary audio as fast as it can")
def fast_audio(stage: Stage) -> None:
    attack_by_calls(stage, audiosocket, frame(0x10, bytes(320)))


# Attacks over WebSocket


@attack("a call sends empty WebSocket pings")
def empty_pings(stage: Stage) -> None:
    attack_by_calls(stage, websocket, message(PING))


@attack("a call sends empty WebSocket fragments without end")
def empty_fragments(stage: Stage) -> None:
    attack_by_calls(stage, websocket, message(CONTINUATION, fin=False), first=message(BINARY, fin=False))


@attack("a call sends empty WebSocket messages")
def empty_messages(stage: Stage) -> None:
    attack_by_calls(stage, websocket, message(BINARY))


@attack("a call sends ERROR events")
def error_events(stage: Stage) -> None:
    attack_by_calls(stage, websocket, message(TEXT, b"ERROR error_text:x"))


@attack("the server that a call is bridged to sends MARK_MEDIA and audio in turn", assistants=BRIDGE)
def marks_of_upstream(stage: Stage) -> None:
    data = message(TEXT, b"MARK_MEDIA 1", mask=b"") + message(BINARY, bytes(160), mask=b"")
    with socket.create_server(("127.0.0.1", UPSTREAM_PORT)) as listening:
        listening.settimeout(0.2)
        upstream = threading.Thread(target=serve_upstream, args=(stage, listening, data), daemon=True)
        upstream.start()
        attack_by_calls(stage, audiosocket, b"", assistant="9", end="upstream_failed")
        upstream.join(5)


def attack_by_calls(
    stage: Stage,
    connect: Connect,
    data: bytes,
    *,
    first: bytes = b"",
    assistant: str = "1",
    end: str = "protocol_error",
) -> None:
    """Flood a call, and when it has ended, another one.

    :param end: how each of them is to end.
    """
    calls = []
    while stage.goes_on():
        calls.append(stage.server.register(assistant))
        try:
            with connect(stage, calls[-1]) as connection:
                connection.sendall(first)
                flood(stage, connection, data * (65_536 // max(1, len(data))))
        except OSError:
            stage.over.wait(AGAIN_S)
    reasons = [ended(stage, call) for call in calls]
    # The stage may have ended before the last one.
    stage.expect(set(reasons[:-1]) <= {end} and reasons[-1] in (end, "caller_hangup"), f"hostile calls: {reasons}")
    stage.found.append(f"the hostile call ended as ``{reasons[0]}``")


def ended(stage: Stage, call: str) -> str:
    """How a call ended. What the kernel still holds of a flood is read first."""
    deadline_s = time.monotonic() + 15
    while time.monotonic() < deadline_s:
        reason: str = stage.server.request("GET", f"/v1/calls/{call}")[1]["reason"]
        if reason:
            return reason
        time.sleep(0.1)
    return "nothing"


def flood(stage: Stage, connection: socket.socket, data: bytes) -> None:
    """Send until the stage is over or the connection closed. What is sent stays whole frames."""
    rest = memoryview(data)
    while stage.goes_on():
        try:
            rest = rest[connection.send(rest) :] or memoryview(data)
        except TimeoutError:
            pass
        try:
            if not connection.recv(65_536):
                raise ConnectionResetError
        except TimeoutError:
            pass


def audiosocket(stage: Stage, call: str) -> socket.socket:
    """A call over AudioSocket, which is up: the server sends."""
    connection = stage.connect(stage.server.audiosocket_port, 5)
    connection.sendall(frame(0x01, UUID(call).bytes))
    connection.recv(1)
    connection.settimeout(0.005)
    return connection


def websocket(stage: Stage, call: str) -> socket.socket:
    """A call over a WebSocket."""
    connection = stage.connect(timeout_s=5)
    connection.sendall(
        f"GET /v1/talk/asterisk/ctx/{call} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: media\r\n"
        f"x-api-key: {API_KEY}\r\n\r\n".encode()
    )
    answer = connection.recv(4096)
    stage.expect(b" 101 " in answer, f"the handshake was refused: {answer[:80]!r}")
    connection.sendall(message(TEXT, MEDIA_START))
    connection.settimeout(0.005)
    return connection


def serve_upstream(stage: Stage, listening: socket.socket, data: bytes) -> None:
    """Accept each call that is bridged here, and flood it."""
    while stage.goes_on():
        try:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(5)
                accept_websocket(connection)
                connection.settimeout(0.005)
                flood(stage, connection, data * 300)
        except OSError:
            continue


def accept_websocket(connection: socket.socket) -> None:
    """Answer the handshake (RFC 6455, 4.2.2)."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    headers = dict(line.lower().partition(b": ")[::2] for line in head.split(b"\r\n"))
    key = head[head.lower().index(headers[b"sec-websocket-key"]) :][:24]
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: media\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
