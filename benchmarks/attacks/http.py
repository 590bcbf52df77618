"""Attacks over HTTP, without a key."""

from __future__ import annotations

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
