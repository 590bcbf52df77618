"""The interfaces as typing Protocols, for annotations: a type checker needs no plugin to understand them.

Written by ``script/protocols`` from the interfaces, which describe the members; ``Call`` here is ``ICall`` there, and
so on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.context import CallContext, CallProgress, ContextStatus, EndReason
from rapida_twisted.interfaces.values import Adopted, EntryKind, JournalEntry, Notice, Playable, PlayOutcome, Swept, T

__all__ = [
    "Assistant",
    "Call",
    "CallJournal",
    "CallPlumbing",
    "CallStarter",
    "CallStore",
    "ContextStore",
    "LeaseStore",
    "MediaChannel",
    "MediaSink",
    "NoticeStore",
    "OrderStore",
    "PolledReader",
    "Reception",
    "Tap",
]


class Call(Protocol):
    """A call, as its assistant sees it: the same over every transport."""

    @property
    def context(self) -> CallContext: ...

    @property
    def rate_hz(self) -> int: ...

    @property
    def queued_ms(self) -> float: ...

    @property
    def heard_ms(self) -> float: ...

    @property
    def ended(self) -> EndReason | None: ...

    @property
    def reactor(self) -> Any: ...

    def play(self, audio: Playable, rate_hz: int | None = None) -> Deferred[PlayOutcome]: ...

    def play_tone(self, hz: float, duration_ms: float, level_db: float = -10.0) -> Deferred[PlayOutcome]: ...

    def stop(self, playing: Deferred[PlayOutcome]) -> None: ...

    def queued(self) -> Deferred[None]: ...

    def wait(self, seconds: float) -> Deferred[None]: ...

    def write(self, samples: bytes) -> None: ...

    def flush(self) -> float | None: ...

    def digits(
        self,
        count: int | None = None,
        timeout_s: float = 10.0,
        terminator: str = "#",
        *,
        pattern: str | None = None,
        on_digit: Callable[[str], object] | None = None,
    ) -> Deferred[str]: ...

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]: ...

    def transfer(self, dial_string: str) -> Deferred[None]: ...

    def hang_up(self) -> Deferred[None]: ...


class CallPlumbing(Call, Protocol):
    """The same call, for assistants that stand between a call and something else: a recorder, a bridge."""

    def fetch(self, source: Callable[[], bytes | None] | None) -> None: ...

    def tap(
        self,
        heard: Callable[[bytes], None] | None = None,
        said: Callable[[bytes], None] | None = None,
        rate_hz: int | None = None,
    ) -> Tap: ...

    def hand_over(self, assistant: Assistant) -> None: ...

    def note(self, text: str) -> None: ...


class Tap(Protocol):
    """One listener to a call."""

    def stop(self) -> None: ...


class Assistant(Protocol):
    """Answers one call. Its factory makes one for each call. Callbacks run in the reactor's thread."""

    @property
    def rate_hz(self) -> int | None: ...

    async def answer(self, call: Call) -> None: ...

    def audio_received(self, call: Call, samples: bytes) -> None: ...

    def digit_received(self, call: Call, digit: str) -> None: ...

    def call_ended(self, call: Call, reason: EndReason) -> None: ...


class PolledReader(Protocol):
    """A connection that the media clock may read itself, in place of the reactor."""

    @property
    def polled(self) -> bool: ...

    def take_over(self) -> None: ...

    def give_back(self) -> None: ...

    def poll(self) -> bool: ...


class MediaChannel(Protocol):
    """One media connection, as its call sees it: where the caller's audio comes from and goes to."""

    @property
    def transport_name(self) -> str: ...

    @property
    def peer(self) -> str: ...

    @property
    def format(self) -> AudioFormat: ...

    @property
    def paced(self) -> bool: ...

    @property
    def reading(self) -> PolledReader | None: ...

    def send_audio(self, payload: bytes) -> None: ...

    def flush(self) -> None: ...

    def mark(self, reached: Callable[[], None]) -> None: ...

    def hang_up(self) -> None: ...

    def abort(self) -> None: ...


class MediaSink(Protocol):
    """A call, as its media channel sees it. All methods may be called at any time, also after the call's end."""

    def audio_received(self, payload: bytes) -> None: ...

    def digit_received(self, digit: str) -> None: ...

    def format_changed(self) -> None: ...

    def sending_paused(self, paused: bool) -> None: ...

    def media_ended(self, reason: EndReason, detail: str = "") -> None: ...


class CallStarter(Protocol):
    """Starts the calls whose media is up. A connection that we make to Asterisk needs no more than this."""

    def start(self, context: CallContext, channel: MediaChannel) -> MediaSink: ...

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None: ...


class Reception(CallStarter, Protocol):
    """Where the media connections of Asterisk arrive: joins each to its registered call."""

    def claim(
        self, context_id: str, transport: str, peer: str, assistants: Collection[str] = ()
    ) -> Deferred[CallContext]: ...


class ContextStore(Protocol):
    """Keeps call contexts, from registration until they are forgotten."""

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]: ...

    def calls_of_key(self, key_name: str, *, now: float) -> Deferred[int]: ...

    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]: ...

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]: ...

    def move_on(self, context_id: str, *, next_dial: str) -> Deferred[CallContext]: ...

    def follow(
        self, context_id: str, progress: CallProgress, *, notify: bool = False
    ) -> Deferred[CallContext | None]: ...

    def get(self, context_id: str) -> Deferred[CallContext]: ...

    def recent(
        self, limit: int, status: ContextStatus | None = None, *, assistants: Collection[str] = ()
    ) -> Deferred[list[CallContext]]: ...


class NoticeStore(Protocol):
    """Keeps each process's undelivered notices."""

    def notices(self, limit: int, after: int = 0) -> Deferred[list[Notice]]: ...

    def drop_notice(self, number: int) -> Deferred[None]: ...


class LeaseStore(Protocol):
    """Knows which of the processes that share the store are alive."""

    @property
    def owner(self) -> str: ...

    def renew(self, *, now: float, until: float) -> Deferred[None]: ...

    def end_lease(self, owner: str) -> Deferred[None]: ...

    def adopt(self, *, now: float, presume: bool = True) -> Deferred[Adopted]: ...

    def sweep(
        self, *, now: float, forget_before: float, presume: bool = True, forget_journals_before: float | None = None
    ) -> Deferred[Swept]: ...


class OrderStore(Protocol):
    """Passes orders between the processes that share the store."""

    def order(self, owner: str, order: Mapping[str, str], *, now: float) -> Deferred[None]: ...

    def orders(self, *, now: float) -> Deferred[list[Mapping[str, str]]]: ...


class CallJournal(Protocol):
    """Keeps what happened in each call: entries are added and read, never changed."""

    def add_entry(self, context_id: str, kind: EntryKind, text: str, *, at: float) -> Deferred[int]: ...

    def entries(
        self, context_id: str, *, kind: EntryKind | None = None, text: str = "", after: int = 0, limit: int = 100
    ) -> Deferred[list[JournalEntry]]: ...


class CallStore(ContextStore, NoticeStore, LeaseStore, OrderStore, CallJournal, Protocol):
    """A whole call store, which the server needs. Several processes may share one."""

    def open(self) -> Deferred[None]: ...

    def close(self) -> Deferred[None]: ...

    def check(self) -> Deferred[None]: ...
