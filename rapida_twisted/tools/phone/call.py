"""One call of a phone: registered, connected, talked and listened through, ended, and measured on the way.

The call knows nothing of its transport: a :class:`Line` carries it. Everything that happens at a time (frames,
digits, the end) happens in the tick of a media clock, on absolute deadlines.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall

from rapida_twisted.errors import RegistrationRefused
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.tools.phone.figures import Arrivals, Level, RoundTrip, Spread
from rapida_twisted.tools.phone.queue import QueueFigures
from rapida_twisted.tools.phone.report import CallReport
from rapida_twisted.tools.phone.sound import Recording, Sound

__all__ = ["CallPlan", "Line", "PhoneCall", "SetUpFailed", "TimedDigit"]

AFTER_LAST_S = 2.0
"""How long a call goes on after its sound and its digits are over."""
LONGEST_S = 60.0
"""How long a call goes on when nothing says how long."""
CLOSE_TIMEOUT_S = 2.0


class SetUpFailed(Exception):
    """A call did not come up; the text says why, and what can be done."""


@dataclass(frozen=True, order=True)
class TimedDigit:
    """A key, and when to press it (s after the media connection is up)."""

    at_s: float
    digit: str


@dataclass(frozen=True)
class CallPlan:
    """What a call is to do."""

    sound: Sound
    digits: tuple[TimedDigit, ...] = ()
    duration_s: float | None = None
    """When to hang up; None: when sound and digits are over, plus 2 s, and after 60 s at the latest."""
    save: Path | None = None
    """The WAV file for what is heard."""

    @property
    def end_s(self) -> float:
        """When the phone hangs up, if the server did not."""
        if self.duration_s is not None:
            return self.duration_s
        if self.sound.length_s is None:
            return LONGEST_S
        last_s = max([self.sound.length_s, *(timed.at_s for timed in self.digits)])
        return min(LONGEST_S, last_s + AFTER_LAST_S)

    def numbered(self, number: int | None) -> CallPlan:
        """This plan with the number in the name of its file; unchanged for None."""
        if self.save is None or number is None:
            return self
        return replace(self, save=self.save.with_name(f"{self.save.stem}-{number}{self.save.suffix}"))


class Line(Protocol):
    """What carries a call: an AudioSocket connection, or whatever else a server listens to.

    It tells the call of what happens: see the ``line_...`` methods there.
    """

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        """Send one frame; whether the server keeps up, else it was dropped."""

    def send_digit(self, digit: str) -> None:
        """Send a key."""

    def hang_up(self) -> None:
        """End the call in the transport's orderly way; the call's ``line_gone`` follows."""

    def abort(self) -> None:
        """End it at once."""

    def queue_figures(self) -> QueueFigures | None:
        """How the queue of what is to be heard went; None where there is none, and audio is heard as it comes."""


class PhoneCall:
    """One call.

    :param number: counts a phone's calls, from 1.
    :param clock: its period is the packet time of the sound.
    :param register: registers the call, and gives its contextId.
    :param dial: opens the line of a contextId for a call, or fails with SetUpFailed.
    :param now: a monotonic time in seconds.
    """

    def __init__(
        self,
        number: int,
        plan: CallPlan,
        *,
        clock: MediaClock,
        reactor: Any,
        register: Callable[[], Awaitable[str]],
        dial: Callable[[UUID, PhoneCall], Awaitable[Line]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = CallReport(number)
        self.arrivals = Arrivals()
        self.level = Level()
        self.round_trip = RoundTrip()
        self.up = False
        """Whether the line is up."""
        self._plan = plan
        self._clock = clock
        self._reactor = reactor
        self._register = register
        self._dial = dial
        self.now = self._now = now
        self._line: Line | None = None
        self._digits = deque(sorted(plan.digits))
        self._frames: Iterator[bytes | None] = plan.sound.frames()
        self._recording = Recording(plan.save) if plan.save is not None else None
        self._up_at_s = 0.0
        self._over: Deferred[None] = Deferred()
        self._setting_up: Deferred[None] | None = None
        self._overdue: IDelayedCall | None = None
        self._interrupted = False

    async def place(self) -> CallReport:
        """Place the call, and wait for its end. Gives the report, whatever the server or the network did."""
        self._setting_up = setting_up = Deferred.fromCoroutine(self._set_up())
        setting_up.addBoth(self._set_up_done)
        try:
            await setting_up
            await self._over
        except (CancelledError, RegistrationRefused, SetUpFailed) as error:
            self.report.problem = self._set_up_problem(error)
        return self.report

    def hang_up(self, reason: str) -> None:
        """End the call from this side, in whatever state it is."""
        if self._setting_up is not None:
            self._interrupted = True
            self._setting_up.cancel()
        elif self._line is not None and not self.report.ended_by:
            self._end("phone", reason)
            self._close(self._line)

    # What the clock says

    def tick(self) -> None:
        """Do what is due: digits, the end, one frame."""
        line, elapsed_s = self._line, self._now() - self._up_at_s
        if line is None or self.report.ended_by:
            return
        while self._digits and self._digits[0].at_s <= elapsed_s:
            digit = self._digits.popleft().digit
            line.send_digit(digit)
            self.report.digits_sent += digit
        if elapsed_s >= self._plan.end_s:
            self.hang_up("its time was over")
            return
        frame = next(self._frames)
        if frame is None:
            return
        if line.send_audio(frame):
            self.report.frames_out += 1
        else:
            self.report.frames_dropped += 1

    # What the line says

    def line_said(self, samples: bytes) -> None:
        """This left, as a perfect echo of it would be heard (s16le mono)."""
        self.round_trip.sent(samples, self._now())

    def line_heard(self, samples: bytes, rate_hz: int, at_s: float | None = None) -> None:
        """The server is heard: s16le mono.

        :param at_s: when, on the line's own clock; None: now.
        """
        now_s = self._now()
        self.arrivals.add(now_s if at_s is None else at_s, len(samples) / 2 / rate_hz)
        self.round_trip.heard(samples, now_s)
        self.level.add(samples)
        if self._recording is not None:
            self._recording.add(samples, rate_hz)

    def line_silent(self, samples: bytes, rate_hz: int) -> None:
        """Nothing is heard for so long, on a line that has its own clock."""
        if self._recording is not None:
            self._recording.add(samples, rate_hz)

    def line_hung_up(self, how: str) -> None:
        """The server ended the call; :meth:`line_gone` follows."""
        self._end("server", how)

    def line_gone(self, problem: str) -> None:
        """The line is no more; ``problem`` is empty for an orderly end."""
        self._end("network" if problem else "server", problem or "it closed the connection")
        self.up = False
        if self._overdue is not None and self._overdue.active():
            self._overdue.cancel()
        if not self._over.called:
            self._settle(problem)
            self._over.callback(None)

    # Parts

    async def _set_up(self) -> None:
        report, started_s = self.report, self._now()
        report.context_id = await self._register()
        registered_s = self._now()
        report.registration_ms = _ms(registered_s - started_s)
        try:
            call = UUID(report.context_id)
        except ValueError:
            raise RegistrationRefused(0, "what the server answered is no contextId") from None
        self._line = await self._dial(call, self)
        self._up_at_s = self._now()
        report.connection_ms = _ms(self._up_at_s - registered_s)
        if not self._over.called:
            self.up = True
            self._clock.add(self)

    def _set_up_done(self, result: Any) -> Any:
        self._setting_up = None
        return result

    def _set_up_problem(self, error: Exception) -> str:
        """Why the call did not come up, and what can be done."""
        if self._interrupted:
            # Whatever was going on then fails in its own way.
            return "interrupted before the call was up"
        if isinstance(error, RegistrationRefused):
            return f"{str(error).rstrip('.')}; {_ADVICE.get(error.status, 'see the log of the server')}"
        return str(error)

    def _end(self, by: str, reason: str) -> None:
        """Remember who ended the call; the first one counts."""
        if self.report.ended_by:
            return
        self.report.ended_by, self.report.reason = by, reason
        if self._up_at_s:
            self.report.duration_s = round(self._now() - self._up_at_s, 3)
        self._clock.remove(self)

    def _close(self, line: Line) -> None:
        line.hang_up()
        if not self._over.called:
            self._overdue = self._reactor.callLater(CLOSE_TIMEOUT_S, line.abort)

    def _settle(self, problem: str) -> None:
        """Fill in what was measured, and judge."""
        report, end_s = self.report, self._up_at_s + self.report.duration_s
        report.queue = self._line.queue_figures() if self._line is not None else None
        # Where a queue is heard, silence is not sent: audio that stopped before the end is not missing.
        report.heard = self.arrivals.figures(end_s if self._up_at_s and report.queue is None else None)
        report.level_db = self.level.db
        report.round_trip_ms = Spread.of(self.round_trip.times_s)
        report.round_trips = len(self.round_trip.times_s)
        if self.arrivals.first_s is not None and self._up_at_s:
            report.first_audio_ms = _ms(max(0.0, self.arrivals.first_s - self._up_at_s))
        if self._recording is not None:
            report.saved = self._recording.close()
        if report.ended_by == "network":
            report.problem = f"the connection was lost: {problem}"
        elif not len(self.arrivals):
            report.problem = (
                f"no audio was heard ({report.ended_by} ended the call: {report.reason}); see the server's log"
            )
        elif self._recording is not None and self._recording.problem:
            report.problem = self._recording.problem


def _ms(duration_s: float) -> float:
    return round(duration_s * 1000, 2)


_ADVICE = {
    0: "is the server running, and is this its address (--http)?",
    401: "set RAPIDA_API_KEY to one of its keys, or name the file that holds one (--key-file)",
    403: "set RAPIDA_API_KEY to one of its keys, or name the file that holds one (--key-file)",
    404: "name an assistant that it has (--assistant)",
    429: "try again, or place fewer calls at once (--rate)",
    503: "it is full, about to stop, or can't reach its store: try again, or see its log",
}
