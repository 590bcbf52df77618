"""Finds out what blocks the reactor: while it is blocked, the process serves no call.

A heartbeat runs in the reactor. A thread notices when the heartbeat is late, and looks at the stack of the reactor's
thread::

    reactor  beat  beat  beat  [ time.sleep(2) in an assistant   ]  beat: counts 2 s for this assistant
    thread    look  look  look  look  look: warns, with the stack
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from rapida_twisted.context import CallContext
from rapida_twisted.media.call import Call

__all__ = ["ReactorWatch"]

BEAT_S = 0.2
LATE_S = 0.5
"""The reactor counts as blocked when a beat is this late (s)."""
WARN_AGAIN_S = 60.0
"""The same assistant causes no further warning for this long (s)."""
MAX_FRAMES = 12
"""Maximum frames of the logged stack."""


class _Holder(NamedTuple):
    """Whose code blocks the reactor."""

    context: CallContext
    name: str
    """The assistant's class, as far as known."""


class ReactorWatch:
    """Reports blockages of the reactor.

    :param beat: called with each heartbeat's time (monotonic ms), and with 0 at the end, in the reactor's thread.
    :param blocked: called after a blockage with the assistant's id (empty if it was no assistant) and its length (s).
    :param reactor: provides IReactorTime and IReactorCore.
    """

    _log = Logger()

    def __init__(
        self,
        blocked: Callable[[str, float], None],
        reactor: Any,
        beat: Callable[[int], None] = lambda now_ms: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blocked = blocked
        self._beat = beat
        self._now = now
        self._reactor = reactor
        self._loop = LoopingCall(self._beats)
        self._loop.clock = reactor
        self._beat_s = 0.0
        self._thread_id = 0
        self._seen = False
        """Whether the thread has reported the current blockage."""
        self._holder: _Holder | None = None
        self._warned_s: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reactor-watch", daemon=True)

    def start(self) -> None:
        """Start with the reactor's next turn. Called once, in its thread."""
        self._thread_id = threading.get_ident()
        self._reactor.callWhenRunning(self._run)

    def _run(self) -> None:
        if not self._stopped.is_set():
            self._beat_s = self._now()
            self._loop.start(BEAT_S).addErrback(
                lambda failure: self._log.failure("the reactor is no longer watched", failure)
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop. Idempotent."""
        self._stopped.set()
        if self._loop.running:
            self._loop.stop()
            self._beat(0)
            self._thread.join()

    def _beats(self) -> None:
        late_s = self._now() - self._beat_s - BEAT_S
        if self._seen:
            self._blocked(self._holder.context.assistant_id if self._holder else "", max(0.0, late_s))
        self._beat_s, self._seen, self._holder = self._now(), False, None
        self._beat(int(self._beat_s * 1000))

    # In the thread

    def _watch(self) -> None:
        looked_s = self._now()
        while not self._stopped.wait(BEAT_S):
            before_s, looked_s = looked_s, self._now()
            if not self._seen and looked_s - self._beat_s > BEAT_S + LATE_S:
                try:
                    self._look(looked_s, punctual=looked_s - before_s < BEAT_S + LATE_S)
                except Exception:
                    self._log.failure("what blocks the reactor can't be told")

    def _look(self, now_s: float, *, punctual: bool) -> None:
        """Look who blocks the reactor.

        :param punctual: False if this thread was held up, too: by code that does not release the interpreter, or
            because the whole process was stopped, which is nobody's fault.
        """
        frame = sys._current_frames().get(self._thread_id)
        holder = _holder(frame)
        if frame is None or not (holder or punctual):
            return
        self._holder, self._seen = holder, True
        name = holder.name if holder else ""
        if now_s - self._warned_s.get(name, -WARN_AGAIN_S) < WARN_AGAIN_S:
            return
        self._warned_s[name] = now_s
        stack = "".join(traceback.format_list(traceback.extract_stack(frame, MAX_FRAMES))).rstrip()
        held_s = now_s - self._beat_s
        if holder is None:
            self._log.warn(
                "the reactor is blocked for {held_s:.1f} s, and no call is served:\n{stack}", held_s=held_s, stack=stack
            )
            return
        self._log.warn(
            "call {id}: the assistant {assistant_id} ({assistant}) has blocked the reactor for {held_s:.1f} s so far,"
            " and no call is served; run this code in a thread (deferToThread):\n{stack}",
            id=holder.context.context_id, assistant_id=holder.context.assistant_id, assistant=name, held_s=held_s,
            stack=stack,
        )  # fmt: skip


def _holder(frame: FrameType | None) -> _Holder | None:
    """The call nearest to the innermost frame: among the variables of the functions that are running."""
    for value in _variables(frame):
        # Not isinstance(), which asks the value for its __class__: a lazy object's own code must not run here.
        if issubclass(type(value), Call):
            return _Holder(value.context, value.assistant_name)
        if issubclass(type(value), CallContext):
            return _Holder(value, "")
    return None


def _variables(frame: FrameType | None) -> Iterator[Any]:
    while frame is not None:
        yield from list(frame.f_locals.values())
        frame = frame.f_back
