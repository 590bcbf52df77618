"""Many callers over AudioSocket in one thread, who talk all the time and note what they hear."""

from __future__ import annotations

import select
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from rapida_twisted.wire.audiosocket import AsteriskCodec, AudioFrame, HangupFrame, UuidFrame, audio_header

__all__ = ["Caller", "Callers"]

PERIOD_S = 0.02
FRAME = audio_header(320) + b"\x00\x10" * 160


@dataclass(eq=False)
class Caller:
    """One call, as its caller has it."""

    context_id: str
    connection: socket.socket
    codec: AsteriskCodec = field(default_factory=AsteriskCodec)
    heard: int = 0
    """Frames."""
    heard_at: float = 0.0
    """When the last one came, on the monotonic clock."""
    gap_s: float = 0.0
    """The longest time between two."""
    hung_up: bool = False
    """Whether the server sent a hangup frame."""
    over: bool = False


class Callers:
    """Callers of a server with the assistant ``echo``."""

    def __init__(self) -> None:
        self.all: list[Caller] = []
        self._new: list[Caller] = []
        self._poll = select.poll()
        self._by_file: dict[int, Caller] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def call(self, port: int, context_ids: Iterable[str]) -> list[Caller]:
        """Call with these contexts."""
        callers = []
        for context_id in context_ids:
            connection = socket.create_connection(("127.0.0.1", port), 5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            caller = Caller(context_id, connection)
            connection.sendall(caller.codec.send(UuidFrame(uuid.UUID(context_id))))
            connection.setblocking(False)
            callers.append(caller)
        self.all += callers
        self._new += callers
        return callers

    def up(self, callers: Iterable[Caller] | None = None, within_s: float = 0.5) -> list[Caller]:
        """Those who have just heard something."""
        now = time.monotonic()
        return [each for each in callers or self.all if not each.over and now - each.heard_at < within_s]

    def hang_up(self, callers: Iterable[Caller] | None = None) -> None:
        """Hang up, as Asterisk does."""
        for caller in list(callers or self.all):
            caller.over = True

    def stop(self) -> None:
        """Hang all up, and end."""
        self._stopping = True
        self._thread.join(10)
        for caller in self.all:
            caller.connection.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            for caller in list(self._new):
                self._new.remove(caller)
                self._by_file[caller.connection.fileno()] = caller
                self._poll.register(caller.connection, select.POLLIN)
            # Spread over the period, as real callers are.
            callers = list(self._by_file.values())
            for number, caller in enumerate(callers):
                if number % 10 == 0:
                    self._listen()
                self._talk(caller)
            due = max(due + PERIOD_S, time.monotonic() - 0.1)
            while (left_s := due - time.monotonic()) > 0:
                self._listen(left_s)

    def _listen(self, timeout_s: float = 0.0) -> None:
        for file, _ in self._poll.poll(timeout_s * 1000):
            caller = self._by_file.get(file)
            if caller is not None:
                self._hear(caller)

    def _talk(self, caller: Caller) -> None:
        if caller.over:
            self._end(caller)
            return
        try:
            caller.connection.send(FRAME)
        except BlockingIOError:
            pass
        except OSError:
            self._end(caller)

    def _hear(self, caller: Caller) -> None:
        try:
            data = caller.connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(caller)
            return
        now = time.monotonic()
        for frame in caller.codec.receive_data(data):
            if isinstance(frame, AudioFrame):
                if caller.heard:
                    caller.gap_s = max(caller.gap_s, now - caller.heard_at)
                caller.heard += 1
                caller.heard_at = now
            elif isinstance(frame, HangupFrame):
                caller.hung_up = True

    def _end(self, caller: Caller) -> None:
        caller.over = True
        file = caller.connection.fileno()
        if self._by_file.pop(file, None) is not None:
            self._poll.unregister(file)
            caller.connection.close()
