"""Peers that do not do what they should."""

from __future__ import annotations

import random
import socket
import threading
import time
import uuid
from collections.abc import Callable

from benchmarks.harness.server import Server
from benchmarks.injections.phones import FRAME
from benchmarks.injections.scene import Scene, fault, figure, kb_of, log_bytes
from rapida_twisted.wire.audiosocket import AsteriskCodec, UuidFrame


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.settimeout(0.2)
    return connection


@fault(
    "a thousand connections that send nothing",
    "the server closes each after the 5 s for its UUID; calls go on",
)
def half_open(scene: Scene) -> None:
    """See above."""
    seconds = min(5.0, scene.scale.seconds)
    server = scene.serve(AUDIOSOCKET__UUID_S=str(seconds))
    callers, before_kb = scene.call(server), kb_of(server)
    began = time.monotonic()
    silent = [_connect(server.audiosocket_port) for _ in range(scene.scale.connections)]
    scene.found.append(f"{(kb_of(server) - before_kb) / len(silent):.0f} KB each")
    for connection in silent:
        connection.settimeout(seconds + 5)
        try:
            scene.expect(connection.recv(100) == b"", "one was told something")
        except ConnectionResetError:
            pass
        connection.close()
    took_s = time.monotonic() - began
    scene.found.append(f"the last of {len(silent)} closed after {took_s:.1f} s")
    scene.expect(took_s < seconds + 3, "they were closed late")
    scene.expect_untouched(callers)
    scene.expect_new_call(server)


def _bad_peers(scene: Scene, server: Server, behave: Callable[[socket.socket, threading.Event], None]) -> None:
    """A tenth as many calls behave so for a while, in threads of their own; the others and the memory stay."""
    callers, before_kb = scene.call(server), kb_of(server)
    over, threads = threading.Event(), []
    for _ in range(max(1, scene.scale.calls // 10)):
        context_id = server.register("1")
        connection = _connect(server.audiosocket_port)
        connection.sendall(AsteriskCodec().send(UuidFrame(uuid.UUID(context_id))))
        threads.append(threading.Thread(target=behave, args=(connection, over), daemon=True))
        threads[-1].start()
    time.sleep(scene.scale.seconds)
    grown_kb = kb_of(server) - before_kb
    over.set()
    for thread in threads:
        thread.join(5)
    scene.found.append(f"{len(threads)} of them, {grown_kb / len(threads):.0f} KB each")
    scene.expect(grown_kb < 2000 + 500 * len(threads), f"the memory grew by {grown_kb} KB")
    scene.expect_untouched(callers)
    scene.expect_new_call(server)
    late_s = figure(server.metrics(), "rapida_tick_lateness_p99_seconds")
    scene.found.append(f"99 of 100 frames at most {late_s * 1000:.1f} ms late")


@fault("peers that send and never read", "their memory is bounded; calls go on")
def peer_does_not_read(scene: Scene) -> None:
    """See above."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        due = time.monotonic()
        while not over.is_set():
            try:
                connection.sendall(FRAME)
            except OSError:
                break
            due += 0.02
            time.sleep(max(0.0, due - time.monotonic()))
        connection.close()

    _bad_peers(scene, scene.serve(), behave)


@fault("peers that send ten times too fast", "their memory is bounded; calls go on")
def peer_too_fast(scene: Scene) -> None:
    """See above."""

    def behave(connection: socket.socket, over: threading.Event) -> None:
        due = time.monotonic()
        connection.setblocking(False)
        while not over.is_set():
            try:
                connection.send(10 * FRAME)
                while connection.recv(65536):
                    pass
                break
            except BlockingIOError:
                pass
            except OSError:
                break
            due += 0.02
            time.sleep(max(0.0, due - time.monotonic()))
        connection.close()

    _bad_peers(scene, scene.serve(), behave)


@fault(
    "garbage on every port for a minute",
    "the server goes on; its memory and its log stay bounded; calls go on",
)
def garbage(scene: Scene) -> None:
    """See above."""
    server = scene.serve(AUDIOSOCKET__UUID_S="1")
    callers = scene.call(server)
    warm_until = time.monotonic() + scene.scale.seconds / 2
    chance, count, bytes_sent = random.Random(7), 0, 0

    def throw(until: float) -> None:
        nonlocal count, bytes_sent
        while time.monotonic() < until:
            data = _garbage(chance)
            try:
                with _connect(chance.choice((server.audiosocket_port, server.http_port))) as connection:
                    connection.sendall(data)
                    connection.settimeout(0.01)
                    connection.recv(4096)
            except OSError:
                pass
            count, bytes_sent = count + 1, bytes_sent + len(data)

    throw(warm_until)
    warm_kb, log_before = kb_of(server), log_bytes(server)
    throw(time.monotonic() + scene.scale.seconds * 2)
    grown_kb, log = kb_of(server) - warm_kb, log_bytes(server) - log_before
    scene.found.append(f"{count:,} connections with {bytes_sent / 1e6:.0f} MB")
    scene.found.append(f"memory {grown_kb:+d} KB, {log / 1000:.0f} kB of log")
    scene.expect(grown_kb < 8000, f"the memory grew by {grown_kb} KB")
    scene.expect(log < 300 * count, f"the log grew by {log} bytes")
    scene.expect("Traceback" not in server.log(), "a traceback in the log")
    scene.expect_untouched(callers)
    scene.expect_new_call(server)


def _garbage(chance: random.Random) -> bytes:
    """Noise, or something that looks right for a while."""
    noise = chance.randbytes(chance.randint(1, 20_000))
    kind = chance.randrange(5)
    if kind == 0:
        return noise
    if kind == 1:
        return AsteriskCodec().send(UuidFrame(uuid.UUID(bytes=chance.randbytes(16)))) + noise
    line = chance.choice((b"GET /", b"POST /v1/talk/asterisk/outbound/1", b"GET /v1/talk/asterisk/ctx/", b"\r\n\r\n"))
    if kind == 2:
        return line + noise
    head = line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    if kind == 3:
        return head + b"\r\n" + noise
    return head + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n" + noise
