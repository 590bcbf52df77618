"""The interfaces as typing Protocols, for annotations: a type checker needs no plugin to understand them.

Written by ``script/protocols`` from the interfaces, which say more; ``Call`` here is ``ICall`` there, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.context import CallContext, CallProgress, ContextStatus, EndReason
from rapida_twisted.interfaces.values import Adopted, EntryKind, JournalEntry, Notice, Playable, PlayOutcome, Swept

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
]


class Call(Protocol):
    """A call, as its assistant sees it: the same over every transport."""

    @property
    def context(self) -> CallContext:
        """Caller, called number, assistant id, and the registration's variables."""

    @property
    def rate_hz(self) -> int:
        """The rate of the samples that the assistant hears and plays."""

    @property
    def queued_ms(self) -> float:
        """How much of what was played has not left yet, as far as known (ms)."""

    @property
    def ended(self) -> EndReason | None:
        """Why the call ended; None while it lasts."""

    @property
    def reactor(self) -> Any:
        """The reactor, for timers and whatever else an assistant needs."""

    def play(self, audio: Playable, rate_hz: int | None = None) -> Deferred[PlayOutcome]:
        """Queue audio, to be heard after what was queued before."""

    def write(self, samples: bytes) -> None:
        """Live audio at the assistant's rate: heard as soon as possible, while nothing that was played is waiting."""

    def flush(self) -> float:
        """Barge-in: drop everything that waits to be heard. Returns how much that was (ms)."""

    def digits(self, count: int, timeout_s: float = 10.0, terminator: str = "#") -> Deferred[str]:
        """Collect ``count`` digits, or those before the terminator, or what came within the time."""

    def transfer(self, dial_string: str) -> Deferred[None]:
        """Transfer the caller: the media ends, and the dialplan asks the server what to dial next."""

    def hang_up(self) -> Deferred[None]:
        """End the call. Fires when it is over; queued audio is dropped."""


class CallPlumbing(Call, Protocol):
    """The same call, for assistants that stand between a call and something else: a recorder, a bridge."""

    def fetch(self, source: Callable[[], bytes | None] | None) -> None:
        """Live audio that is fetched when it is due, so that it is queued in one place only; None to stop."""

    def tap(self, heard: Callable[[bytes], None] | None, said: Callable[[bytes], None] | None) -> None:
        """Listen in, with s16le mono at :attr:`rate_hz`; None to stop."""

    def hand_over(self, assistant: Assistant) -> None:
        """Another assistant answers from now on. Audio that the former one played is still heard; its ``answer()``
        is cancelled, and its ``call_ended()`` is called at the call's end nevertheless."""

    def note(self, text: str) -> None:
        """Add a sentence to the call's record (``detail``): what went wrong although the call goes on."""


class Assistant(Protocol):
    """Answers one call. Its factory makes one for each call. Callbacks run in the reactor's thread."""

    @property
    def rate_hz(self) -> int | None:
        """The rate (Hz) of the samples it hears and plays; None: the wire's own."""

    async def answer(self, call: Call) -> None:
        """Runs while the call lasts, and is cancelled when it ends. Its return does not end the call."""

    def audio_received(self, call: Call, samples: bytes) -> None:
        """Audio of the caller: s16le mono at the assistant's rate, as long as the caller's packet."""

    def digit_received(self, call: Call, digit: str) -> None:
        """The caller pressed one of ``0-9 A-D * #``."""

    def call_ended(self, call: Call, reason: EndReason) -> None:
        """The call is over, whichever side ended it. Called exactly once."""


class PolledReader(Protocol):
    """A connection that the media clock may read itself, in place of the reactor."""

    @property
    def polled(self) -> bool:
        """Whether the clock reads it now."""

    def take_over(self) -> None:
        """The clock reads from now on; the reactor no longer reports incoming data."""

    def give_back(self) -> None:
        """The reactor reads from now on. Does nothing if it already does, or if the connection is closing."""

    def poll(self) -> bool:
        """Read what has arrived, without waiting. True if anything had. Ends and errors are handled as usual."""


class MediaChannel(Protocol):
    """One media connection, as its call sees it: where the caller's audio comes from and goes to."""

    @property
    def transport_name(self) -> str:
        """'audiosocket' or 'websocket'."""

    @property
    def peer(self) -> str:
        """The peer's address, as text."""

    @property
    def format(self) -> AudioFormat:
        """Encoding and rate on the wire, both ways. It may change once, before the first audio: the channel then
        calls the sink's format_changed()."""

    @property
    def paced(self) -> bool:
        """Whether the peer times the playing itself. If not, send_audio() is called with one frame each 20 ms; if
        so, with several frames ahead of time, and marks report what was heard."""

    @property
    def reading(self) -> PolledReader | None:
        """How the media clock may read the connection itself; None, or absent, where only the reactor can."""

    def send_audio(self, payload: bytes) -> None:
        """Send audio in the wire's format: one frame of 20 ms, or, when paced, a multiple of it."""

    def flush(self) -> None:
        """Have the peer drop what it has not played yet. Only paced channels have anything to do."""

    def mark(self, reached: Callable[[], None]) -> None:
        """Call ``reached`` when everything sent so far was played. A flush cancels it."""

    def hang_up(self) -> None:
        """End the connection in the protocol's own orderly way, after what was sent."""

    def abort(self) -> None:
        """End the connection at once."""


class MediaSink(Protocol):
    """A call, as its media channel sees it. All methods may be called at any time, also after the call's end."""

    def audio_received(self, payload: bytes) -> None:
        """Audio of the caller, in the channel's format, as long as the caller's packet."""

    def digit_received(self, digit: str) -> None:
        """The caller pressed one of ``0-9 A-D * #``."""

    def format_changed(self) -> None:
        """The channel has another format now."""

    def sending_paused(self, paused: bool) -> None:
        """The peer wants no more audio for now (True), or again (False). Paced channels only."""

    def media_ended(self, reason: EndReason, detail: str = "") -> None:
        """The connection is closed or closing: nothing more arrives, nothing more can be sent."""


class CallStarter(Protocol):
    """Starts the calls whose media is up. A connection that we make to Asterisk needs no more than this."""

    def start(self, context: CallContext, channel: MediaChannel) -> MediaSink:
        """Start a claimed call on a channel that is ready for audio."""

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None:
        """The connection of a claimed call closed before :meth:`start`."""


class Reception(CallStarter, Protocol):
    """Where the media connections of Asterisk arrive: joins each to its registered call."""

    def claim(self, context_id: str, transport: str, peer: str) -> Deferred[CallContext]:
        """Take a registered call for this connection, exactly once."""


class ContextStore(Protocol):
    """Keeps call contexts, from registration until they are forgotten."""

    def add(self, context: CallContext, max_pending: int) -> Deferred[None]:
        """Keep a new, pending context."""

    def calls_of_key(self, key_name: str, *, now: float) -> Deferred[int]:
        """How many calls that an API key registered are claimed, or pending and not expired."""

    def claim(self, context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        """Turn a pending context into a claimed one, atomically: of many claims exactly one succeeds."""

    def finish(
        self, context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        """Turn a claimed context into a completed or failed one. Fails with ``UnknownContext``, and with
        ``ContextError`` when it is not claimed."""

    def move_on(self, context_id: str, *, next_dial: str) -> Deferred[CallContext]:
        """Keep where the dialplan is to send a claimed call next. Fails as :meth:`finish` does."""

    def follow(self, context_id: str, progress: CallProgress, *, notify: bool = False) -> Deferred[CallContext | None]:
        """Apply progress of an outbound call, see :meth:`~rapida_twisted.context.CallContext.followed`. Fires with
        the changed context, or None if the progress is not new. Fails with ``UnknownContext``."""

    def get(self, context_id: str) -> Deferred[CallContext]:
        """The context, or ``UnknownContext``."""

    def recent(self, limit: int, status: ContextStatus | None = None) -> Deferred[list[CallContext]]:
        """The newest contexts first (by creation), of one status or of all."""


class NoticeStore(Protocol):
    """Keeps each process's undelivered notices."""

    def notices(self, limit: int, after: int = 0) -> Deferred[list[Notice]]:
        """This process's oldest notices with a higher number than ``after``, in the order in which they were made."""

    def drop_notice(self, number: int) -> Deferred[None]:
        """Forget a notice of this process: it was delivered, or given up."""


class LeaseStore(Protocol):
    """Knows which of the processes that share the store are alive."""

    @property
    def owner(self) -> str:
        """The name of this process among those that share the store. Empty: there are no others, and what is claimed
        without a name is never taken for lost."""

    def renew(self, *, now: float, until: float) -> Deferred[None]:
        """Extend this process's lease."""

    def end_lease(self, owner: str) -> Deferred[None]:
        """End a lease now: that process is known to be gone."""

    def adopt(self, *, now: float, presume: bool = True) -> Deferred[Adopted]:
        """Take over all outbound calls that are not over and have no living follower, and the notices of processes
        that are gone. Of several processes that ask, exactly one gets each."""

    def sweep(
        self, *, now: float, forget_before: float, presume: bool = True, forget_journals_before: float | None = None
    ) -> Deferred[Swept]:
        """Mark pending contexts whose time is over as expired, and claimed ones whose owner is gone as failed
        (``server_lost``); forget those that ended (completed, failed, expired) before ``forget_before``."""


class OrderStore(Protocol):
    """Passes orders between the processes that share the store."""

    def order(self, owner: str, order: Mapping[str, str], *, now: float) -> Deferred[None]:
        """Leave an order for another process, for at most a minute."""

    def orders(self, *, now: float) -> Deferred[list[Mapping[str, str]]]:
        """Take the orders for this process, in the order in which they were given."""


class CallJournal(Protocol):
    """Keeps what happened in each call: entries are added and read, never changed."""

    def add_entry(self, context_id: str, kind: EntryKind, text: str, *, at: float) -> Deferred[int]:
        """Add an entry to the journal of a call, also after the call's end. Fires with the entry's number."""

    def entries(
        self, context_id: str, *, kind: EntryKind | None = None, text: str = "", after: int = 0, limit: int = 100
    ) -> Deferred[list[JournalEntry]]:
        """The entries of a call in the order in which they were added; none of a call that has no journal."""


class CallStore(ContextStore, NoticeStore, LeaseStore, OrderStore, CallJournal, Protocol):
    """A whole call store, which the server needs. Several processes may share one."""

    def open(self) -> Deferred[None]:
        """Get ready; called once, before anything else."""

    def close(self) -> Deferred[None]:
        """Finish what is under way and release everything, this process's lease included."""

    def check(self) -> Deferred[None]:
        """Fires if the store can be read and written right now."""
