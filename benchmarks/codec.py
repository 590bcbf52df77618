#!/usr/bin/env python3
"""Frames that the AudioSocket codec decodes a second, alone, for several ways in which TCP may split them."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rapida_twisted.wire.audiosocket import AsteriskCodec, AudioFrame, ServerCodec, UuidFrame

FRAME_BYTES = 320


def main(argv: Sequence[str] | None = None) -> int:
    """The command; gives the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks/codec.py", description=__doc__)
    parser.add_argument("--frames", type=int, default=200_000, help="frames a round [default: 200000]")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts [default: 5]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    words = parser.parse_args(argv)
    client = AsteriskCodec()
    identity = client.send(UuidFrame(uuid4()))
    frame = client.send(AudioFrame(bytes(FRAME_BYTES)))
    stream = frame * words.frames
    ways = {
        "1 frame a chunk": _even(stream, len(frame)),
        "10 frames a chunk": _even(stream, 10 * len(frame)),
        "random chunks of 1 to 2000 bytes": _random(stream, 2000),
    }
    results = {name: _frames_per_s(identity, chunks, words.frames, words.rounds) for name, chunks in ways.items()}
    if words.json:
        print(json.dumps({"frames_per_s": results}))
    else:
        for name, rate in results.items():
            print(f"{name:<34} {rate / 1e6:6.2f} million frames a second")
    return 0


def _even(stream: bytes, size: int) -> list[bytes]:
    return [stream[begin : begin + size] for begin in range(0, len(stream), size)]


def _random(stream: bytes, most: int) -> list[bytes]:
    chance, chunks, at = random.Random(20), [], 0
    while at < len(stream):
        size = chance.randint(1, most)
        chunks.append(stream[at : at + size])
        at += size
    return chunks


def _frames_per_s(identity: bytes, chunks: list[bytes], frames: int, rounds: int) -> int:
    """The median of the rounds; each decodes all chunks with a codec of its own."""
    rates = []
    for _ in range(rounds):
        codec = ServerCodec()
        list(codec.receive_data(identity))
        decoded, started_s = 0, time.perf_counter()
        for chunk in chunks:
            for _frame in codec.receive_data(chunk):
                decoded += 1
        taken_s = time.perf_counter() - started_s
        if decoded != frames:
            raise RuntimeError(f"{decoded} frames came out of {frames}")
        rates.append(frames / taken_s)
    return round(statistics.median(rates))


if __name__ == "__main__":
    sys.exit(main())
