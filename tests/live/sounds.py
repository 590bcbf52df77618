"""Sounds in which nothing can be missing without being missed, and how to find what is."""

from __future__ import annotations

import numpy as np

from tests.live.recordings import Recording

__all__ = ["losses", "noise", "pcm"]

PIECE_S = 0.5
FRAME_S = 0.02
PADDING_S = 1.0


def noise(seconds: float, level_db: float = -20.0) -> Recording:
    """Noise, the same each time: no two moments of it are alike, so each can be found again."""
    samples = np.random.default_rng(1).standard_normal(round(seconds * 8000))
    return Recording(np.clip(samples * 10 ** (level_db / 20), -1.0, 1.0), 8000)


def pcm(recording: Recording) -> bytes:
    """As samples of 16 bits."""
    return bytes(np.round(recording.samples * 32767).astype("<i2").tobytes())


def losses(said: Recording, heard: Recording, drift_s: float = 0.06) -> list[str]:
    """Describe each stretch of speech that the recording lacks, in frames of 20 ms; empty if all was heard.

    The first half second that is found aligns the two. Each frame may be ``drift_s`` off from there.
    """
    # A recording from which the beginning is missing starts later than the speech.
    heard = Recording(np.concatenate((np.zeros(round(PADDING_S * heard.rate_hz)), heard.samples)), heard.rate_hz)
    offset = _offset_s(said, heard)
    if offset is None:
        return [f"all is lost: no half second of {said.seconds:g} s is in the {heard.seconds - PADDING_S:g} s heard"]
    count = round(said.seconds / FRAME_S)
    frames = [(number * FRAME_S, said.part(number * FRAME_S, (number + 1) * FRAME_S)) for number in range(count)]
    lost = [at for at, frame in frames if not _is_near(frame, heard, offset + at, drift_s)]
    return [
        f"{begin:.2f} s: {size} of {count} frames ({size * FRAME_S:.2f} s) lost; the recording"
        f" begins at {PADDING_S - offset:+.3f} s of what was said"
        for begin, size in _stretches(lost)
    ]


def _offset_s(said: Recording, heard: Recording) -> float | None:
    """The speech's start in the recording (s), by the first piece that is found; None if none is."""
    begin = heard.first_sound_s() or 0.0
    # If the beginning is lost, the first sound belongs to a later piece, which may be cut as well.
    window_s = max(0.0, begin - PIECE_S)
    window = heard.part(window_s, begin + 2 * PIECE_S)
    for at, piece in said.pieces(PIECE_S, above_db=-60):
        found_s, likeness = piece.found_in(window)
        if likeness > 0.7:
            return window_s + found_s - at
    return None


def _is_near(frame: Recording, heard: Recording, at_s: float, drift_s: float) -> bool:
    window = heard.part(max(0.0, at_s - drift_s), max(0.0, at_s + FRAME_S + drift_s))
    return window.seconds >= FRAME_S and frame.found_in(window)[1] > 0.8


def _stretches(lost: list[float]) -> list[tuple[float, int]]:
    """Runs of neighbouring frames: the start (s) and the number of frames of each."""
    runs: list[tuple[float, int]] = []
    for at in lost:
        if runs and at - runs[-1][0] < (runs[-1][1] + 0.5) * FRAME_S:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((at, 1))
    return runs
