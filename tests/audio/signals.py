"""Measures a tone after processing: its level, its frequency, and the noise added to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Measured", "level_db", "measure", "samples_of", "sign_changes"]


@dataclass(frozen=True)
class Measured:
    """One tone among other things."""

    hz: float
    """Where the spectrum has its peak (to a tenth of a Hz or so)."""
    level_db: float
    """Of the sine at the expected frequency, against a full-scale one."""
    snr_db: float
    """That sine against all the rest."""


def samples_of(samples: bytes) -> np.ndarray:
    """S16le samples as numbers."""
    return np.frombuffer(samples, "<i2").astype(float)


def sign_changes(samples: np.ndarray) -> int:
    """How often it crosses zero."""
    signs = np.sign(samples[samples != 0])
    return int((signs[1:] != signs[:-1]).sum())


def level_db(samples: bytes) -> float:
    """The level of whatever it is, against a full-scale sine."""
    return float(20 * np.log10(max(np.sqrt((samples_of(samples) ** 2).mean() * 2), 1e-3) / 32767))


def measure(samples: bytes, hz: float, rate_hz: int) -> Measured:
    """Fit a sine of the expected frequency to the middle half, where no ramp and no filter's beginning is."""
    heard = samples_of(samples)
    heard = heard[len(heard) // 4 : -(len(heard) // 4)]
    turns = 2 * np.pi * hz * np.arange(len(heard)) / rate_hz
    basis = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    weights = np.linalg.lstsq(basis, heard, rcond=None)[0]
    fitted = basis @ weights
    rest = max(((heard - fitted) ** 2).mean(), 1e-12)
    return Measured(
        hz=_peak_hz(heard, rate_hz),
        level_db=float(20 * np.log10(max(np.hypot(*weights), 1e-3) / 32767)),
        snr_db=float(10 * np.log10(max((fitted**2).mean(), 1e-12) / rest)),
    )


def _peak_hz(heard: np.ndarray, rate_hz: int) -> float:
    padded = 1 << (len(heard) * 4 - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard)), padded))
    return float(np.argmax(spectrum) * rate_hz / padded)
