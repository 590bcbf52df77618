"""Sounds in which nothing can be missing without being missed, and how to find what is."""

from __future__ import annotations

import numpy as np

from tests.live.recordings import Recording

__all__ = ["losses", "noise", "pcm"]

PIECE_S = 0.5


def noise(seconds: float, level_db: float = -20.0) -> Recording:
    """Noise, the same each time: no two moments of it are alike, so each can be found again."""
    samples = np.random.default_rng(1).standard_normal(round(seconds * 8000))
    return Recording(np.clip(samples * 10 ** (level_db / 20), -1.0, 1.0), 8000)


def pcm(recording: Recording) -> bytes:
    """As samples of 16 bits."""
    return bytes(np.round(recording.samples * 32767).astype("<i2").tobytes())


def losses(said: Recording, heard: Recording, like: float = 0.95, drift_s: float = 0.06) -> list[str]:
    """The pieces of what was said that are not found where they should be, in words; best none.

    Each piece is looked for where it is to be expected after the first; by ``drift_s`` it may be later or earlier.
    """
    begin = heard.first_sound_s() or 0.0
    first_s, _ = said.part(0, PIECE_S).found_in(heard.part(max(0.0, begin - 0.1), begin + PIECE_S + 0.5))
    offset = max(0.0, begin - 0.1) + first_s
    lost = []
    for at, piece in said.pieces(PIECE_S, above_db=-60):
        where = max(0.0, offset + at - drift_s)
        window = heard.part(where, offset + at + PIECE_S + drift_s)
        if window.seconds < PIECE_S:
            lost.append(f"{at:g} s: the recording is over")
            continue
        found_s, likeness = piece.found_in(window)
        if likeness < like:
            lost.append(f"{at:g} s: {likeness:.2f} alike at {where + found_s - offset - at:+.3f} s")
    return lost
