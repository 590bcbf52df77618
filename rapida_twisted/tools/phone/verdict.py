"""Judges a call: whole, or why not."""

from __future__ import annotations

from rapida_twisted.tools.phone.figures import FRAME_S
from rapida_twisted.tools.phone.report import CallReport

__all__ = ["verdict"]

FEWEST_FRAMES = 100
"""A share is taken of this many frames (2 s) at least: in a short call a single late frame would weigh too much."""


def verdict(report: CallReport, tolerate_percent: float) -> str:
    """Why a call that was up was not whole, in one sentence; empty if it was."""
    heard = report.heard
    if heard is None or not heard.frames:
        return f"the server sent no audio ({report.ended_by} ended the call: {report.reason}); see the server's log"
    due, sent = round(heard.audio_s / FRAME_S) + heard.missing, report.frames_out + report.frames_dropped
    allowed = f"more than the {tolerate_percent:g} % that --tolerate allows"
    if _percent(heard.missing + heard.late, due) > tolerate_percent:
        return f"of {due} frames {heard.missing} were missing and {heard.late} late: {allowed}"
    if _percent(report.frames_dropped, sent) > tolerate_percent:
        return f"of {sent} frames {report.frames_dropped} were not sent, since the server read too slowly: {allowed}"
    return ""


def _percent(count: int, total: int) -> float:
    return 100 * count / max(total, FEWEST_FRAMES)
