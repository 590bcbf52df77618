"""Those who try API keys."""

from __future__ import annotations

import time

from benchmarks.attacks.stage import Stage, attack
from rapida_twisted.credentials.failed_keys import DELAY_S, FREE_PER_MINUTE

CONNECTIONS = 20
GET = b"GET /v1/calls HTTP/1.1\r\nHost: x\r\nx-api-key: rpd-%d\r\n\r\n"
UPGRADE = (
    b"GET /v1/talk/asterisk/ctx/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: media\r\n"
    b"x-api-key: rpd-%d\r\n\r\n"
)


@attack(f"{CONNECTIONS} connections try API keys, by HTTP")
def wrong_keys(stage: Stage) -> None:
    try_keys(stage, GET)


@attack(f"{CONNECTIONS} connections try API keys, by WebSocket handshakes")
def wrong_keys_of_media(stage: Stage) -> None:
    try_keys(stage, UPGRADE)


def try_keys(stage: Stage, request: bytes) -> None:
    """Try one key after the other, each connection as soon as the one before is refused."""
    tried: list[float] = []
    began_s = time.monotonic()

    def one() -> None:
        while stage.goes_on():
            with stage.connect(timeout_s=5) as connection:
                connection.sendall(request % len(tried))
                answer = connection.recv(4096)
                stage.expect(b" 401 " in answer, f"a wrong key was answered by {answer[:80]!r}")
                tried.append(time.monotonic())

    stage.side_by_side(CONNECTIONS, one)
    took_s = time.monotonic() - began_s
    most = FREE_PER_MINUTE + CONNECTIONS * (took_s / DELAY_S + 1)
    stage.expect(len(tried) <= most, f"{len(tried)} keys were tried in {took_s:.0f} s")
    stage.found.append(f"{len(tried) / took_s:.0f} keys a second")
