"""Attacks over HTTP, without a key."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from benchmarks.attacks.stage import Stage, attack

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@attack("nothing: the calls alone")
def nothing(stage: Stage) -> None:
    """For comparison."""
    stage.over.wait()


@attack("one connection pipelines 65 KB/s of GET /healthz")
def pipelining_slowly(stage: Stage) -> None:
    stage.flood(HEALTHZ * 50, bytes_a_second=65_000)


@attack("one connection pipelines GET /healthz as fast as it can")
def pipelining(stage: Stage) -> None:
    stage.flood(HEALTHZ * 500)


@attack("20 connections pipeline GET /healthz as fast as they can")
def pipelining_widely(stage: Stage) -> None:
    stage.side_by_side(20, lambda: stage.flood(HEALTHZ * 500))


@attack("20 connections pipeline GET /readyz, which asks the store")
def readyz(stage: Stage) -> None:
    stage.side_by_side(20, lambda: stage.flood(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n" * 500))


@attack("20 connections guess keys, with queries of 4 KB and 100 parameters")
def long_queries(stage: Stage) -> None:
    query = b"&".join(b"%%61%02d=" % number + b"%41" * 11 for number in range(100))
    request = b"GET /v1/talk/asterisk/call/1?" + query + b" HTTP/1.1\r\nHost: x\r\nx-api-key: rpd-guess\r\n\r\n"
    stage.side_by_side(20, lambda: stage.flood(request * 50))


@attack("20 connections send queries of 7 KB to /healthz, which needs no key")
def longer_queries(stage: Stage) -> None:
    request = b"GET /healthz?" + b"a=%41&" * 1166 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    stage.side_by_side(20, lambda: stage.flood(request * 50))


@attack("20 connections send paths of 2,000 slashes")
def deep_paths(stage: Stage) -> None:
    request = b"GET " + b"/" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    stage.side_by_side(20, lambda: stage.flood(request * 50))


@attack("20 connections, again and again, send a Content-Length of 4,300 digits")
def content_length(stage: Stage) -> None:
    request = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 4301 + b"\r\n\r\n"
    stage.side_by_side(20, lambda: stage.once_and_again(request))


@attack("20 connections, again and again, begin a WebSocket handshake with 7 KB of garbage")
def handshakes(stage: Stage) -> None:
    request = (
        b"GET /v1/talk/asterisk/ctx HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: " + b"x" * 7000 + b"\r\nSec-WebSocket-Key: x\r\n\r\n"
    )
    stage.side_by_side(20, lambda: stage.once_and_again(request))


@attack("20 connections, again and again, begin TLS on the plain port")
def tls_hello(stage: Stage) -> None:
    stage.side_by_side(20, lambda: stage.once_and_again(b"\x16\x03\x01\x02\x00\x01" + bytes(500)))


@attack("silent connections from two addresses fill the port (300 allowed, 200 of an address); a dialplan registers",
        CONNECTIONS__MAX="300", CONNECTIONS__OF_ADDRESS="200")  # fmt: skip
def silent_sockets(stage: Stage) -> None:
    silent: list[socket.socket] = []
    tried = registered = 0

    def sit(address: str) -> None:
        while stage.goes_on():
            one = socket.create_connection(("127.0.0.1", stage.server.http_port), 5, source_address=(address, 0))
            silent.append(one)
            time.sleep(0.002)

    addresses = "127.0.0.1", "127.0.0.2"
    sitting = [threading.Thread(target=_until_broken, args=(sit, each), daemon=True) for each in addresses]
    for thread in sitting:
        thread.start()
    time.sleep(1)
    while stage.goes_on():
        tried += 1
        try:
            registered += len(stage.server.register("1")) == 36
        except OSError:
            pass
        time.sleep(0.1)
    for thread in sitting:
        thread.join(5)
    stage.found.append(f"{registered} of {tried} registrations, beside {len(silent):,} silent connections")
    stage.expect(registered >= tried - 1 > 5, f"{tried - registered} of {tried} registrations failed")
    for one in silent:
        one.close()


def _until_broken(run: Callable[[str], None], address: str) -> None:
    try:
        run(address)
    except OSError:
        pass
