"""Tones as s16le mono: beeps and DTMF digits."""

from __future__ import annotations

import numpy as np

__all__ = ["dtmf", "tone"]

_RAMP_MS = 5.0
"""Without a ramp at both ends a tone clicks."""
_ROWS_HZ = (697, 770, 852, 941)
_COLUMNS_HZ = (1209, 1336, 1477, 1633)
_KEYS = "123A456B789C*0#D"


def tone(hz: float, duration_ms: float, rate_hz: int, level_db: float = -10.0) -> bytes:
    """A sine tone.

    :param level_db: relative to a full-scale sine (negative).
    """
    return _tones((hz,), duration_ms, rate_hz, level_db)


def dtmf(digit: str, duration_ms: float, rate_hz: int, level_db: float = -10.0) -> bytes:
    """The two tones of a DTMF digit (ITU-T Q.23), each at the level.

    :raises ValueError: the digit is not one of ``0-9 A-D * #``.
    """
    if len(digit) != 1 or digit not in _KEYS:
        raise ValueError(f"a digit is one of {_KEYS}, not {digit!r}")
    row, column = divmod(_KEYS.index(digit), 4)
    return _tones((_ROWS_HZ[row], _COLUMNS_HZ[column]), duration_ms, rate_hz, level_db)


def _tones(frequencies_hz: tuple[float, ...], duration_ms: float, rate_hz: int, level_db: float) -> bytes:
    count = round(rate_hz * duration_ms / 1000)
    times_s = np.arange(count) / rate_hz
    sound = sum(np.sin(2 * np.pi * hz * times_s) for hz in frequencies_hz) * 32767 * 10 ** (level_db / 20)
    edge = min(round(rate_hz * _RAMP_MS / 1000), count // 2)
    ramp = np.ones(count)
    if edge:
        ramp[:edge] = np.linspace(0, 1, edge)
        ramp[-edge:] = ramp[:edge][::-1]
    return bytes(np.clip(np.rint(sound * ramp), -32768, 32767).astype("<i2").tobytes())
