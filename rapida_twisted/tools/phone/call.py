"""One call of a phone: registers, connects, sends and receives audio, hangs up, and measures.

The call knows no transport: a :class:`MediaConnection` carries it. The tick of a media clock does everything that has
a time (frames, digits, the end), on absolute deadlines.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall

from rapida_twisted.errors import RegistrationRefused
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.tools.phone.figures import Arrivals, Level, RoundTrip, Spread
from rapida_twisted.tools.phone.plan import CallPlan
from rapida_twisted.tools.phone.queue import QueueFigures
from rapida_twisted.tools.phone.report import CallReport
from rapida_twisted.tools.phone.sound import Recording
from rapida_twisted.tools.phone.verdict import verdict

__all__ = ["MediaConnection", "PhoneCall", "SetUpFailed", "connection_failed"]

CLOSE_TIMEOUT_S = 2.0

_KEY_ADVICE = "set RAPIDA_API_KEY to one of its keys, or name the file that holds one (--key-file)"
_ADVICE = {
    0: "is the server running, and is this its address (--http)?",
    401: _KEY_ADVICE,
    403: _KEY_ADVICE,
    404: "name one of the server's assistants (--assistant)",
    429: "try again, or place fewer calls at once (--rate)",
    503: "it is full, about to stop, or cannot reach its store: try again, or see its log",
}


class SetUpFailed(Exception):
    """A call was not set up; the text says why, and advises."""


def connection_failed(error: Exception, address: str) -> SetUpFailed:
    """The error for a media connection that was not made.

    :param address: the address to check, for the advice.
    """
    reason = str(error).rstrip(".")
    return SetUpFailed(f"the media connection failed ({reason}): is the server running, and is this its {address}?")


class MediaConnection(Protocol):
    """Carries a call's media, and calls its ``audio_...``, ``hang_up_received`` and ``connection_lost`` methods."""

    def send_audio(self, samples: bytes, rate_hz: int = 8000) -> bool:
        """Send one frame; False: dropped, since the server does not keep up."""

    def send_digit(self, digit: str) -> None: ...

    def hang_up(self) -> None:
        """End the call in the transport's orderly way; the call's ``connection_lost`` follows."""

    def abort(self) -> None:
        """Close at once."""

    def queue_figures(self) -> QueueFigures | None:
        """The figures of the playback queue; None for a transport without one."""


class PhoneCall:
    """One call.

    :param number: counts a phone's calls, from 1.
    :param clock: its period is the packet time of the sound.
    :param register: registers the call, and returns its contextId.
    :param dial: opens the media connection of a contextId for a call, or raises SetUpFailed.
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
        dial: Callable[[UUID, PhoneCall], Awaitable[MediaConnection]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.report = CallReport(number)
        self.arrivals = Arrivals()
        self.level = Level()
        self.round_trip = RoundTrip()
        self.up = False
        """Whether the media connection is up."""
        self.now = now
        self._plan = plan
        self._clock = clock
        self._reactor = reactor
        self._register = register
        self._dial = dial
        self._connection: MediaConnection | None = None
        self._digits = deque(sorted(plan.digits))
        self._frames = plan.sound.frames()
        self._recording = Recording(plan.save) if plan.save is not None else None
        self._listeners = [listener for listener in (self._recording, plan.speaker) if listener is not None]
        self._up_at_s = 0.0
        self._over: Deferred[None] = Deferred()
        self._setting_up: Deferred[None] | None = None
        self._overdue: IDelayedCall | None = None
        self._interrupted = False
        self._closed_late = False
        self._sound_problem = ""

    async def place(self) -> CallReport:
        """Place the call, and wait for its end. Returns the report, whatever the server or the network did."""
        self._setting_up = setting_up = Deferred.fromCoroutine(self._set_up())
        setting_up.addBoth(self._set_up_done)
        try:
            await setting_up
            await self._over
        except (CancelledError, RegistrationRefused, SetUpFailed) as error:
            self.report.problem = self._set_up_problem(error)
        return self.report

    def interrupt(self) -> None:
        """End the call from this side, in any state. It counts as failed."""
        if self._setting_up is not None:
            self._interrupted = True
            self._setting_up.cancel()
        elif self._connection is not None and not self.report.ended_by:
            self._interrupted = True
            self._hang_up(self._connection, "interrupted")

    # From the clock

    def tick(self) -> None:
        """Do what is due: digits, the end, one frame."""
        connection, elapsed_s = self._connection, self.now() - self._up_at_s
        if connection is None or self.report.ended_by:
            return
        while self._digits and self._digits[0].at_s <= elapsed_s:
            digit = self._digits.popleft().digit
            connection.send_digit(digit)
            self.report.digits_sent += digit
        if elapsed_s >= self._plan.end_s:
            self._hang_up(connection, "its time was over")
            return
        try:
            frame = next(self._frames)
        except Exception as error:
            # Such as a microphone that can't be started.
            self._sound_problem = f"the sound to send failed: {str(error).rstrip('.')}"
            self._hang_up(connection, self._sound_problem)
            return
        if frame is None:
            return
        if connection.send_audio(frame):
            self.report.frames_out += 1
        else:
            self.report.frames_dropped += 1

    # From the connection

    def audio_sent(self, samples: bytes) -> None:
        """The connection sent audio; the samples (s16le mono) are what a perfect echo returns."""
        self.round_trip.sent(samples, self.now())

    def audio_received(self, samples: bytes, rate_hz: int, at_s: float | None = None) -> None:
        """The server sent audio (s16le mono).

        :param at_s: when it is heard, on the connection's own clock; None: now.
        """
        now_s = self.now()
        self.arrivals.add(now_s if at_s is None else at_s, len(samples) / 2 / rate_hz)
        self.round_trip.heard(samples, now_s)
        self.level.add(samples)
        self.silence_received(samples, rate_hz)

    def silence_received(self, samples: bytes, rate_hz: int) -> None:
        """A tick without audio, on a connection with a clock of its own: recorded, not measured."""
        for listener in self._listeners:
            listener.add(samples, rate_hz)

    def hang_up_received(self, reason: str) -> None:
        """The server ended the call; :meth:`connection_lost` follows."""
        self._end("server", reason)

    def connection_lost(self, problem: str) -> None:
        """The connection is closed; ``problem`` is empty for an orderly end."""
        self._end("network" if problem else "server", problem or "it closed the connection")
        self.up = False
        if self._overdue is not None and self._overdue.active():
            self._overdue.cancel()
        if not self._over.called:
            self._complete_report(problem)
            self._over.callback(None)

    # Parts

    async def _set_up(self) -> None:
        report, started_s = self.report, self.now()
        report.context_id = await self._register()
        registered_s = self.now()
        report.registration_ms = _ms(registered_s - started_s)
        try:
            call_id = UUID(report.context_id)
        except ValueError:
            raise RegistrationRefused(0, "the server's response is not a contextId") from None
        self._connection = await self._dial(call_id, self)
        self._up_at_s = self.now()
        report.connection_ms = _ms(self._up_at_s - registered_s)
        if not self._over.called:
            self.up = True
            self._clock.add(self)

    def _hang_up(self, connection: MediaConnection, reason: str) -> None:
        self._end("phone", reason)
        connection.hang_up()
        if not self._over.called:
            self._overdue = self._reactor.callLater(CLOSE_TIMEOUT_S, self._close_overdue, connection)

    def _close_overdue(self, connection: MediaConnection) -> None:
        self._closed_late = True
        connection.abort()

    def _set_up_done(self, result: Any) -> Any:
        self._setting_up = None
        return result

    def _set_up_problem(self, error: Exception) -> str:
        if self._interrupted:
            # The cancelled step may fail with an error of its own.
            return "interrupted before the call was up"
        if isinstance(error, RegistrationRefused):
            return f"{str(error).rstrip('.')}; {_ADVICE.get(error.status, 'see the log of the server')}"
        return str(error)

    def _end(self, by: str, reason: str) -> None:
        """Record who ended the call; only the first call of this method counts."""
        if self.report.ended_by:
            return
        self.report.ended_by, self.report.reason = by, reason
        if self._up_at_s:
            self.report.duration_s = round(self.now() - self._up_at_s, 3)
        self._clock.remove(self)

    def _complete_report(self, problem: str) -> None:
        report, end_s = self.report, self._up_at_s + self.report.duration_s
        report.queue = self._connection.queue_figures() if self._connection is not None else None
        # With a queue the server sends no silence: audio that stops before the end is not missing.
        report.heard = self.arrivals.figures((self._up_at_s, end_s) if self._up_at_s and report.queue is None else None)
        report.level_db = self.level.db
        report.round_trip_ms = Spread.of(self.round_trip.times_s)
        report.round_trips = len(self.round_trip.times_s)
        if self.arrivals.first_s is not None and self._up_at_s:
            report.first_audio_ms = _ms(max(0.0, self.arrivals.first_s - self._up_at_s))
        if self._recording is not None:
            report.saved = self._recording.close()
        if self._plan.speaker is not None:
            self._plan.speaker.close()
        if report.ended_by == "network":
            report.problem = f"the connection was lost: {problem.rstrip('.')}"
        elif self._interrupted:
            report.problem = "interrupted"
        elif self._sound_problem:
            report.problem = self._sound_problem
        elif self._closed_late:
            report.problem = f"the server did not close the connection within {CLOSE_TIMEOUT_S:g} s of the hang-up"
        else:
            report.problem = verdict(report, self._plan.tolerate_percent)
            if not report.problem and self._recording is not None:
                report.problem = self._recording.problem


def _ms(duration_s: float) -> float:
    return round(duration_s * 1000, 2)
