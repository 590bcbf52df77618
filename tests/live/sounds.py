"""Sounds in which nothing can be missing without being missed, and how to find what is."""

from __future__ import annotations

import numpy as np

from tests.live.recordings import Recording

__all__ = ["losses", "noise", "pcm"]

PIECE_S = 0.5
FRAME_S = 0.02
PADDING_S = 1.0
LONGEST_SHIFT_S = 1.0


def noise(seconds: float, level_db: float = -20.0) -> Recording:
    """Noise, the same each time: no two moments of it are alike, so each can be found again."""
    samples = np.random.default_rng(1).standard_normal(round(seconds * 8000))
    return Recording(np.clip(samples * 10 ** (level_db / 20), -1.0, 1.0), 8000)


def pcm(recording: Recording) -> bytes:
    """As samples of 16 bits."""
    return bytes(np.round(recording.samples * 32767).astype("<i2").tobytes())


def losses(said: Recording, heard: Recording, drift_s: float = 0.06) -> list[str]:
    """Describe each stretch of speech that the recording lacks, in frames of 20 ms; empty if all was heard.

    The first half second that is found aligns the two. Frames that are more than ``drift_s`` off from there are
    reported as well, and align the rest anew.
    """
    # A recording from which the beginning is missing starts later than the speech.
    heard = Recording(np.concatenate((np.zeros(round(PADDING_S * heard.rate_hz)), heard.samples)), heard.rate_hz)
    begin = _offset_s(said, heard)
    if begin is None:
        return [f"all is lost: no half second of {said.seconds:g} s is in the {heard.seconds - PADDING_S:g} s heard"]
    count, offset, lost = round(said.seconds / FRAME_S), begin, 0
    problems = []
    for number in range(count + 1):
        at = number * FRAME_S
        frame = said.part(at, at + FRAME_S)
        found = _find(frame, heard, offset + at, drift_s) if number < count else None
        if found is None and number < count and (found := _find(frame, heard, offset + at, LONGEST_SHIFT_S)) is None:
            lost += 1
            continue
        shift = 0.0 if found is None or abs(found - offset - at) <= drift_s else found - offset - at
        if lost or shift:
            problems.append(
                f"{at - lost * FRAME_S:.2f} s: {lost} of {count} frames ({lost * FRAME_S:.2f} s) lost, the rest"
                f" {shift:+.3f} s late; the recording begins at {PADDING_S - begin:+.3f} s of what was said"
            )
        offset, lost = offset + shift, 0
    return problems


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


def _find(frame: Recording, heard: Recording, at_s: float, off_s: float) -> float | None:
    """Where a frame is in a recording (s), at most so far off from a time; None if it is not there."""
    from_s = max(0.0, at_s - off_s)
    window = heard.part(from_s, max(0.0, at_s + FRAME_S + off_s))
    if window.seconds < FRAME_S:
        return None
    found_s, likeness = frame.found_in(window)
    return from_s + found_s if likeness > 0.8 else None
