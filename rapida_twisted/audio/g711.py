"""G.711 (ITU-T): mu-law and A-law, to and from signed 16-bit samples, and into each other."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # Python 3.13 removes audioop from the standard library; audioop-lts provides it from there on.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

__all__ = ["alaw_to_slin", "alaw_to_ulaw", "slin_to_alaw", "slin_to_ulaw", "ulaw_to_alaw", "ulaw_to_slin"]


def ulaw_to_slin(payload: bytes) -> bytes:
    return audioop.ulaw2lin(payload, 2)


def slin_to_ulaw(samples: bytes) -> bytes:
    return audioop.lin2ulaw(samples, 2)


def alaw_to_slin(payload: bytes) -> bytes:
    return audioop.alaw2lin(payload, 2)


def slin_to_alaw(samples: bytes) -> bytes:
    return audioop.lin2alaw(samples, 2)


_EVERY_BYTE = bytes(range(256))
_ULAW_TO_ALAW = slin_to_alaw(ulaw_to_slin(_EVERY_BYTE))
_ALAW_TO_ULAW = slin_to_ulaw(alaw_to_slin(_EVERY_BYTE))


def ulaw_to_alaw(payload: bytes) -> bytes:
    return payload.translate(_ULAW_TO_ALAW)


def alaw_to_ulaw(payload: bytes) -> bytes:
    return payload.translate(_ALAW_TO_ULAW)
