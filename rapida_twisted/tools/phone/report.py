"""Reports a phone's calls after their end, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rapida_twisted.tools.phone.figures import ArrivalFigures, Spread
from rapida_twisted.tools.phone.queue import QueueFigures
from rapida_twisted.tools.phone.record import CallRecord
from rapida_twisted.tools.terminal import GREEN, RED, paint

__all__ = ["CallReport", "summary_object", "summary_text"]


@dataclass
class CallReport:
    """The result of one call. A duration is None if the call did not get that far."""

    number: int
    context_id: str = ""
    problem: str = ""
    """Why the call failed, in one sentence; empty if it went well."""
    ended_by: str = ""
    """``"phone"``, ``"server"`` or ``"network"``."""
    reason: str = ""
    """Why the call ended."""
    registration_ms: float | None = None
    """From the request to the contextId."""
    connection_ms: float | None = None
    """From the contextId to the open media connection."""
    first_audio_ms: float | None = None
    """From the open media connection to the first audio."""
    duration_s: float = 0.0
    """From the open media connection to its end."""
    frames_out: int = 0
    frames_dropped: int = 0
    """Frames that were not sent, since the server did not keep up."""
    digits_sent: str = ""
    heard: ArrivalFigures | None = None
    """Over AudioSocket: the arrival of the audio. Over WebSocket: its playback from the queue, tick by tick."""
    queue: QueueFigures | None = None
    """WebSocket only."""
    level_db: float | None = None
    """Level of the received audio; None for silence."""
    round_trip_ms: Spread | None = None
    round_trips: int = 0
    """Number of measured round trips."""
    saved: str = ""
    """The file with the received audio."""
    record: CallRecord | None = None
    """The server's record of the call, if the API key can read it."""

    @property
    def ok(self) -> bool:
        return not self.problem

    @property
    def set_up_ms(self) -> float | None:
        """From the request to the first audio."""
        if self.registration_ms is None or self.connection_ms is None or self.first_audio_ms is None:
            return None
        return round(self.registration_ms + self.connection_ms + self.first_audio_ms, 1)


def summary_object(reports: Sequence[CallReport], sending_late_ms: Spread | None) -> dict[str, Any]:
    """The calls and their sums, as one JSON object.

    :param sending_late_ms: how late this phone itself sent its frames.
    """
    heard = _heard(reports)
    return {
        "calls": len(reports),
        "ok": sum(report.ok for report in reports),
        "frames_out": sum(report.frames_out for report in reports),
        "frames_dropped": sum(report.frames_dropped for report in reports),
        "frames_in": sum(figures.frames for figures in heard),
        "late": sum(figures.late for figures in heard),
        "missing": sum(figures.missing for figures in heard),
        "queue": _queue_sums(reports),
        "set_up_ms": (set_up := _set_up(reports)) and asdict(set_up),
        "sending_late_ms": sending_late_ms and asdict(sending_late_ms),
        "each": [{**asdict(report), "ok": report.ok, "set_up_ms": report.set_up_ms} for report in reports],
    }


def summary_text(reports: Sequence[CallReport], sending_late_ms: Spread | None, coloured: bool = False) -> str:
    """The calls as readable lines: one call in full, several as their sums."""
    lines = _one_call(reports[0]) if len(reports) == 1 else _many_calls(reports)
    lines[0] = paint(lines[0], GREEN if all(report.ok for report in reports) else RED, coloured)
    if sending_late_ms is not None:
        lines.append(f"  this phone  sent its own frames late by {_spread(sending_late_ms)}")
    return "\n".join(lines)


def _one_call(report: CallReport) -> list[str]:
    lines = [f"call {report.context_id or '(not registered)'}: " + (report.problem or "went well")]
    if report.connection_ms is None:
        return lines
    heard = report.heard
    lines.append(f"  ended       by the {report.ended_by} after {report.duration_s:.1f} s: {report.reason}")
    lines.append(
        f"  set-up      registration {_ms(report.registration_ms)}, connection {_ms(report.connection_ms)},"
        f" first audio {_ms(report.first_audio_ms)}"
    )
    dropped = f" ({report.frames_dropped} more dropped: the server did not keep up)" if report.frames_dropped else ""
    digits = f", digits {report.digits_sent}" if report.digits_sent else ""
    lines.append(f"  sent        {report.frames_out} frames{dropped}{digits}")
    if heard is not None and heard.frames:
        lines.append(f"  heard       {heard.frames} frames ({heard.audio_s:.2f} s) at {_level(report.level_db)}")
        lines += _queue_lines(report.queue, heard) if report.queue is not None else _arrival_lines(heard)
    lines.append(f"  round trip  {_spread(report.round_trip_ms)}")
    if report.record is not None:
        lines.append(f"  record      {report.record.status}{report.record.reason and f', {report.record.reason}'}")
    if report.saved:
        lines.append(f"  saved in    {report.saved}")
    return lines


def _arrival_lines(heard: ArrivalFigures) -> list[str]:
    return [
        f"  on time     {heard.missing} missing, {heard.late} late; behind by {_spread(heard.late_ms)}",
        f"  apart       {_spread(heard.gap_ms)}; jitter {heard.jitter_ms:.2f} ms",
    ]


def _queue_lines(queue: QueueFigures, heard: ArrivalFigures) -> list[str]:
    lines = [
        f"  in speech   {queue.gap_ticks} frames missing in {_counted(queue.gaps, 'gap')},"
        f" {_counted(queue.pauses, 'pause')} between; jitter {heard.jitter_ms:.2f} ms",
        f"  ahead       {_spread(queue.depth_ms)} waited to be heard; XOFF {queue.xoff}, XON {queue.xon},"
        f" {_counted(queue.flushes, 'flush', 'es')}",
    ]
    if queue.dropped:
        lines.append(f"  lost        {_counted(queue.dropped, 'message')} that came to a full queue")
    return lines


def _many_calls(reports: Sequence[CallReport]) -> list[str]:
    well = [report for report in reports if report.ok]
    lines = [f"{len(reports)} calls: {len(well)} went well, {len(reports) - len(well)} did not"]
    for problem, count in Counter(report.problem for report in reports if not report.ok).most_common():
        lines.append(f"  {count:>4} x      {problem}")
    for end, count in Counter((report.ended_by, report.reason) for report in reports if report.ended_by).most_common():
        lines.append(f"  {count:>4} ended   by the {end[0]}: {end[1]}")
    dropped = sum(report.frames_dropped for report in reports)
    heard = _heard(reports)
    levels = [report.level_db for report in reports if report.level_db is not None]
    lines.append(f"  set-up      {_spread(_set_up(reports))}")
    lines.append(f"  sent        {sum(report.frames_out for report in reports)} frames, {dropped} more dropped")
    lines.append(
        f"  heard       {sum(figures.frames for figures in heard)} frames"
        + (f" at {min(levels):.1f} to {max(levels):.1f} dB" if levels else ", silence")
    )
    queue = _queue_sums(reports)
    if queue is not None:
        lines.append(
            f"  in speech   {queue['gap_ticks']} frames missing in {_counted(queue['gaps'], 'gap')},"
            f" {_counted(queue['pauses'], 'pause')} between"
        )
        lines.append(
            f"  ahead       XOFF {queue['xoff']}, XON {queue['xon']}, {_counted(queue['flushes'], 'flush', 'es')},"
            f" {_counted(queue['dropped'], 'message')} lost at a full queue"
        )
    else:
        latest_ms = max((figures.late_ms.max for figures in heard if figures.late_ms), default=0.0)
        lines.append(
            f"  on time     {sum(figures.missing for figures in heard)} missing,"
            f" {sum(figures.late for figures in heard)} late; the latest {latest_ms:.1f} ms"
        )
    lines.append(f"  jitter      {_spread(Spread.of([figures.jitter_ms / 1000 for figures in heard]))}")
    trips = [report.round_trip_ms.p50 / 1000 for report in reports if report.round_trip_ms]
    lines.append(f"  round trip  {_spread(Spread.of(trips))} (of the calls' medians)")
    return lines


def _heard(reports: Iterable[CallReport]) -> list[ArrivalFigures]:
    return [report.heard for report in reports if report.heard is not None]


def _queue_sums(reports: Iterable[CallReport]) -> dict[str, int] | None:
    """The sums of the calls' queue figures; None without any queue."""
    queues = [report.queue for report in reports if report.queue is not None]
    names = ("gaps", "gap_ticks", "pauses", "flushes", "xoff", "xon", "dropped")
    return {name: sum(getattr(queue, name) for queue in queues) for name in names} if queues else None


def _counted(count: int, noun: str, plural: str = "s") -> str:
    return f"{count} {noun}{'' if count == 1 else plural}"


def _set_up(reports: Iterable[CallReport]) -> Spread | None:
    return Spread.of([report.set_up_ms / 1000 for report in reports if report.set_up_ms is not None])


def _spread(spread: Spread | None) -> str:
    return f"{spread.p50:.1f} ms (p99 {spread.p99:.1f}, max {spread.max:.1f})" if spread else "n/a"


def _ms(duration_ms: float | None) -> str:
    return "n/a" if duration_ms is None else f"{duration_ms:.1f} ms"


def _level(level_db: float | None) -> str:
    return "silence" if level_db is None else f"{level_db:.1f} dB"
