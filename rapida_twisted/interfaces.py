"""Every plug point of the house. Whoever provides one of these can be put in the place of ours."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.context import CallContext, CallProgress, ContextStatus, EndReason
from rapida_twisted.errors import UpstreamFailed
from rapida_twisted.observe.interface import Metrics
from rapida_twisted.settings import Settings

__all__ = [
    "Adopted",
    "AssistantEnvironment",
    "IAssistant",
    "IAssistantFactory",
    "IAssistantMaker",
    "ICall",
    "ICallStore",
    "IFarEnd",
    "IFarEndUser",
    "IMediaChannel",
    "IMediaSink",
    "IOutbound",
    "IPolledReader",
    "IReception",
    "Notice",
    "OutboundCall",
    "PlayOutcome",
    "Playable",
    "Swept",
]

Playable = bytes | str | Path | Iterable[bytes] | AsyncIterable[bytes]
"""What a call can say: samples (s16le mono), a WAV file's path, or the samples in parts as they are made."""


class PlayOutcome(Enum):
    """What became of something said."""

    PLAYED = "played"
    """All of it went to the caller."""
    FLUSHED = "flushed"
    """It was cut short: a flush, or the end of the call."""


class IMediaChannel(Interface):
    """One media connection, as its call sees it: where the caller's audio comes from and goes to.

    A transport says how it differs through its attributes; nobody asks for its type.
    """

    transport_name: str = Attribute("'audiosocket' or 'websocket'.")
    peer: str = Attribute("The peer's address, as text.")
    format: AudioFormat = Attribute(
        "The encoding and rate of the wire, both ways. It may change once, before the first audio: the channel then"
        " tells the call by format_changed()."
    )
    paced: bool = Attribute(
        "Whether the peer times the playing itself. If not, send_audio() is called with one frame each 20 ms;"
        " if so, with several frames ahead of time, and marks tell what was heard."
    )
    reading: IPolledReader | None = Attribute(
        "How the media clock may read the connection itself; None, or not there at all, where only the reactor can."
    )

    def send_audio(payload: bytes) -> None:
        """Send audio in the wire's format: one frame of 20 ms, or, when paced, a multiple of it.

        Never blocks and never raises for a peer that is slow or gone: what can't be sent is dropped and counted.
        """

    def flush() -> None:
        """Have the peer drop what it has not played yet (paced channels; nothing to do on others)."""

    def mark(reached: Callable[[], None]) -> None:
        """Call back when all that was sent so far was played. After a flush it is not called."""

    def hang_up() -> None:
        """End the connection in the protocol's own orderly way, after what was sent."""

    def abort() -> None:
        """End the connection at once."""


class IPolledReader(Interface):
    """A connection that the media clock may read itself, in place of the reactor.

    All that is read goes to the same protocol, in the same order, whoever reads. Whoever calls :meth:`poll` must expect
    that the call ends meanwhile.
    """

    polled: bool = Attribute("Whether the clock reads it now.")

    def take_over() -> None:
        """The clock reads from now on; the reactor says no more that something came."""

    def give_back() -> None:
        """The reactor reads from now on. Nothing happens when it does already, or when the connection is closing."""

    def poll() -> bool:
        """Read what has come, without waiting; whether anything had. An end or an error is handled as always."""


class IMediaSink(Interface):
    """A call, as its media channel sees it. All methods may be called at any time, also after the call's end."""

    def audio_received(payload: bytes) -> None:
        """The caller was heard: audio in the channel's format, of whatever length the caller's packets have."""

    def digit_received(digit: str) -> None:
        """The caller pressed one of ``0-9 A-D * #``."""

    def format_changed() -> None:
        """The channel's format is another now."""

    def sending_paused(paused: bool) -> None:
        """The peer wants no more audio for now (True), or again (False). Paced channels only."""

    def media_ended(reason: EndReason, detail: str = "") -> None:
        """The connection is gone or about to go: nothing more comes, nothing more can be sent."""


class IReception(Interface):
    """Where media connections arrive: it joins each to its registered call."""

    def claim(context_id: str, transport: str, peer: str) -> Deferred[CallContext]:
        """Take a registered call for this connection, exactly once.

        :return: fires with the claimed context, or fails with one of
            :class:`~rapida_twisted.errors.UnknownContext`, ``ContextExpired``, ``ContextClaimed``, ``Draining``,
            ``TooManyCalls``, ``StoreUnavailable``.
        """

    def start(context: CallContext, channel: IMediaChannel) -> IMediaSink:
        """Start a claimed call on a channel that is ready for audio."""

    def abandon(context: CallContext, reason: EndReason, detail: str = "") -> None:
        """A claimed call whose connection went away before :meth:`start`."""


class ICall(Interface):
    """A call in the hands of an assistant. Nothing of the transport shows."""

    context: CallContext = Attribute("Who, whom, which assistant, and the variables of the registration.")
    rate_hz: int = Attribute("The rate of the samples that the assistant hears and speaks.")
    queued_ms: float = Attribute("How much of what was said has not left yet, as far as known (ms).")
    ended: EndReason | None = Attribute("Why the call ended; None while it lasts.")
    reactor: Any = Attribute("The reactor, for timers and whatever else an assistant needs.")

    def play(audio: Playable, rate_hz: int | None = None) -> Deferred[PlayOutcome]:
        """Queue something to be heard after what was queued before.

        :param audio: samples (s16le mono) at ``rate_hz``, a WAV file's path, or an iterable or async iterable of
            such samples. An iterable is read no faster than it is heard.
        :param rate_hz: the samples' rate; the assistant's own if not said. A WAV file tells its own.
        :return: fires with PLAYED or FLUSHED. Cancelling it stops this one thing.
        :raises PlayoutFull: more than the limit is waiting already.
        :raises OSError: the file can't be opened; ``ValueError``: it is no sound file.
        """

    def write(samples: bytes) -> None:
        """Live audio: heard as soon as possible, at the assistant's rate, when nothing said is waiting.

        At most the settings' live limit waits; older audio is dropped and counted, so the delay can't grow.
        """

    def fetch(source: Callable[[], bytes | None] | None) -> None:
        """Live audio that is fetched when it is due, so that it waits in one place alone; None to stop.

        :param source: called while nothing said is waiting: once each 20 ms, or on channels that are sent ahead as
            often as it gives something. Gives 20 ms at the assistant's rate, or None where there is nothing now.
        """

    def flush() -> float:
        """Barge-in: drop all that waits to be heard. Gives how much that was (ms)."""

    def hand_over(assistant: IAssistant) -> None:
        """Another assistant answers from now on. What the former one said is still heard; its ``answer()`` is
        cancelled, and its ``call_ended()`` is called as if it were still there."""

    def note(text: str) -> None:
        """Write a sentence into the call's record (``detail``): what went wrong, though the call goes on."""

    def digits(count: int, timeout_s: float = 10.0, terminator: str = "#") -> Deferred[str]:
        """Collect digits: up to ``count``, or up to the terminator (not included), or what came within the time.

        Digits that came before the call of this method, and were not collected yet, count. Those collected still
        reach ``digit_received``.
        """

    def tap(heard: Callable[[bytes], None] | None, said: Callable[[bytes], None] | None) -> None:
        """Listen in, with s16le mono at :attr:`rate_hz`; None to stop.

        :param heard: called with each of the caller's packets.
        :param said: called once each 20 ms with what leaves, silence included.
        """

    def transfer(dial_string: str) -> Deferred[None]:
        """Hand the caller over: the media ends, and the dialplan's next line asks us whom to dial.

        :param dial_string: such as ``PJSIP/200``; the settings say which are allowed.
        :return: fires when the call is over, or fails, and the call goes on, with
            :class:`~rapida_twisted.errors.TransferRefused` or ``StoreUnavailable``.
        """

    def hang_up() -> Deferred[None]:
        """End the call. Fires when it is over; what was queued is not waited for."""


class IAssistant(Interface):
    """Who answers one call. Made by a factory, one for each call. Callbacks run in the reactor's thread."""

    rate_hz: int | None = Attribute("The rate (Hz) of the samples it hears and speaks; None: the wire's own.")

    async def answer(call: ICall) -> None:
        """Runs while the call lasts, and is cancelled when it ends. Its return does not end the call."""

    def audio_received(call: ICall, samples: bytes) -> None:
        """The caller was heard: s16le mono at the assistant's rate, as long as the caller's packet."""

    def digit_received(call: ICall, digit: str) -> None:
        """The caller pressed a key."""

    def call_ended(call: ICall, reason: EndReason) -> None:
        """The call is over, whoever ended it. Called exactly once."""


@dataclass(frozen=True)
class AssistantEnvironment:
    """What the server offers to the assistants' factories."""

    reactor: Any
    state_dir: Path
    """A directory that the server may write to; it may not exist yet."""
    settings: Settings = field(default_factory=Settings)
    """All that the server was told."""
    check_transfer: Callable[[str], None] = lambda dial_string: None
    """Whether calls may be transferred there; else it raises :class:`~rapida_twisted.errors.TransferRefused`."""
    metrics: Metrics = field(default_factory=Metrics)
    """Who counts what becomes of calls that are carried on."""


class IAssistantMaker(Interface):
    """What makes the assistants of one rule, when it has more to do than that; else a function will do."""

    def __call__(context: CallContext) -> IAssistant:
        """The assistant of one call."""

    async def prepare(context: CallContext) -> CallContext:
        """Called when a call is registered, before its contextId is given away: gives the context that is kept.

        :raises UpstreamFailed: the call would not be answered, so it is not registered.
        """

    def health() -> Mapping[str, Any]:
        """How it is, for ``/readyz``, as JSON has it; empty where there is nothing to tell."""

    async def close() -> None:
        """The server stops; no call is left."""


class IAssistantFactory(Interface):
    """A kind of assistant that can be named on the command line as ``name`` or ``name:argument``.

    Found through ``twisted.plugin``: an instance at the top level of a module in ``twisted/plugins/`` that also
    provides ``twisted.plugin.IPlugin``.
    """

    name: str = Attribute("Its name: letters, digits and dashes.")
    usage: str = Attribute("One line for --help, such as 'play:FILE  plays a WAV file, then hangs up'.")

    def configure(argument: str, house: AssistantEnvironment) -> Callable[[CallContext], IAssistant]:
        """Called once, at the start of the server, with what stands after the colon (or nothing).

        :return: what makes the assistant of one call; it may provide :class:`IAssistantMaker`.
        :raises SettingsError: the argument can't be used; the text is one sentence that says why.
        """


class IFarEnd(Interface):
    """Another server's assistant at the other end of a connection that we made: we are the Asterisk there."""

    format: AudioFormat = Attribute("The encoding and rate of the connection, both ways.")
    queued_ms: float = Attribute("How much it has sent that was not taken yet (ms).")
    dropped_ms: float = Attribute("How much of what it sent was dropped, since there was too much of it (ms).")
    shifted: int = Attribute("Frames that were dropped (counted up) or repeated (too) for the sake of its clock.")

    def send_audio(payload: bytes) -> bool:
        """The caller was heard, in the connection's format; whether it was sent, else it was dropped.

        Never blocks and never raises, also when the connection is gone.
        """

    def send_digit(digit: str) -> None:
        """The caller pressed a key."""

    def take() -> bytes | None:
        """20 ms are due: the next frame that the caller is to hear, or None."""

    def hang_up() -> None:
        """The caller is gone: end the connection as Asterisk does. Nothing is told of it any more."""

    def abort() -> None:
        """End the connection at once. Nothing is told of it any more."""


class IFarEndUser(Interface):
    """Who is at our side of a far end. Nothing is called before the far end was given to it."""

    def far_end_flushed() -> None:
        """The assistant there was interrupted: what it sent and is not heard yet must not be heard any more."""

    def far_end_hung_up() -> None:
        """The assistant there ended the call in an orderly way. The connection is gone; called once, last."""

    def far_end_failed(failure: UpstreamFailed) -> None:
        """The connection is lost; called once, last."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A change of an outbound call's status, to be told to somebody, and kept until it was."""

    number: int
    """Grows with each notice of a store; never used twice."""
    context_id: str
    made_at: float
    """When the change was (UNIX s)."""
    record: Mapping[str, Any]
    """The call's record just after the change, as :func:`~rapida_twisted.context.record_of` makes it."""


@dataclass(frozen=True, kw_only=True)
class OutboundCall:
    """A call to be placed."""

    assistant_id: str
    to: str
    """The number, or with a credential that has no trunk, the endpoint."""
    caller: str = ""
    """The caller id that the far end shall see."""
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variables of the channel, and of the context."""
    credential: str = ""
    """The vault's name for the Asterisk and the trunk; empty: the only one, or the one called ``default``."""
    context: str = ""
    """Where in the dialplan the answered call goes; empty: as the settings say."""
    stasis: bool = False
    """Whether it goes to our Stasis application instead, and needs no dialplan."""
    answer_timeout_s: float = 0.0
    """How long it may ring; 0: as the settings say."""
    key_name: str = ""
    """The name of the API key that asked for it, if it has one."""


class IOutbound(Interface):
    """Who places calls."""

    def place(call: OutboundCall) -> Deferred[CallContext]:
        """Register a call and have Asterisk place it.

        :return: fires when Asterisk has taken the call; if it has to wait for its turn, at once, with ``call_status``
            new. Fails with :class:`~rapida_twisted.errors.CallNotPlaced`, ``TooManyCalls``, ``Draining`` or
            ``StoreUnavailable``. Cancelling it does not take the call back.
        """

    def hang_up(context_id: str) -> bool:
        """Take a call back, or hang it up, whatever became of its media; whether there was one here."""


class Adopted(NamedTuple):
    """What a process took over from others."""

    calls: list[CallContext]
    """Outbound calls that it follows from now on, the oldest first."""
    notices: int
    """How many notices it has to deliver from now on, beside its own."""


class Swept(NamedTuple):
    """What a sweep of a store came to."""

    expired: int
    """Calls whose media never came."""
    lost: int
    """Calls whose process is gone."""


class ICallStore(Interface):
    """Where call contexts are kept. All times are UNIX seconds, given by the caller.

    Every Deferred may fail with :class:`~rapida_twisted.errors.StoreUnavailable`, within a bounded time.

    Several processes may share a store. Each has a name, under which it claims calls, and a lease, which it renews:
    whose lease is over is taken for gone, and what it had is ended by :meth:`sweep` or taken over by :meth:`adopt`.
    """

    owner: str = Attribute(
        "The name of this process among those that share the store. Empty: there are no others, and what is claimed"
        " without a name is never taken for lost."
    )

    def open() -> Deferred[None]:
        """Get ready; called once, before anything else."""

    def close() -> Deferred[None]:
        """Finish what is under way and let go of everything, this process's lease included."""

    def add(context: CallContext, max_pending: int) -> Deferred[None]:
        """Keep a new, pending context.

        :raises TooManyCalls: (through the Deferred) ``max_pending`` contexts are pending already.
        """

    def calls_of_key(key_name: str, *, now: float) -> Deferred[int]:
        """How many calls an API key registered that wait for their media (their time not over), or are claimed."""

    def claim(context_id: str, *, transport: str, peer: str, now: float) -> Deferred[CallContext]:
        """Turn a pending context into a claimed one, atomically: of many claims exactly one succeeds.

        Fails with ``UnknownContext``, ``ContextExpired`` (also when its time is over but nobody swept yet) or
        ``ContextClaimed`` (claimed, or already over).
        """

    def finish(
        context_id: str, *, reason: EndReason, audio_in_s: float, audio_out_s: float, now: float, detail: str = ""
    ) -> Deferred[CallContext]:
        """Turn a claimed context into a completed or failed one. Fails with ``UnknownContext``, and with
        ``ContextError`` when it is not claimed.

        The true end of a call that was taken for lost replaces that; the same end told again changes nothing.
        """

    def move_on(context_id: str, *, next_dial: str) -> Deferred[CallContext]:
        """Note where the dialplan is to send a claimed call next. Fails as :meth:`finish` does."""

    def follow(context_id: str, progress: CallProgress, *, notify: bool = False) -> Deferred[CallContext | None]:
        """Note news of an outbound call, see :meth:`~rapida_twisted.context.CallContext.followed`; the changed context,
        or None where they were none. Fails with ``UnknownContext``.

        :param notify: whether a change makes a :class:`Notice`, in the same step.
        """

    def adopt(*, now: float, presume: bool = True) -> Deferred[Adopted]:
        """Take over all outbound calls that are not over and that nobody follows, or somebody who is gone; with the
        notices of such processes. Each is given to one of those that ask.

        :param presume: whether who did not renew his lease is taken for gone; else only whose lease was ended.
        """

    def notices(limit: int, after: int = 0) -> Deferred[list[Notice]]:
        """This process's oldest notices with a higher number than ``after``, in the order in which they were made."""

    def drop_notice(number: int) -> Deferred[None]:
        """Forget a notice of this process: it was delivered, or given up."""

    def get(context_id: str) -> Deferred[CallContext]:
        """The context, or ``UnknownContext``."""

    def recent(limit: int, status: ContextStatus | None = None) -> Deferred[list[CallContext]]:
        """The newest contexts first (by creation), of one status or of all."""

    def sweep(*, now: float, forget_before: float, presume: bool = True) -> Deferred[Swept]:
        """Mark pending contexts whose time is over as expired, and claimed ones whose owner is gone as failed
        (``server_lost``); forget those that ended (completed, failed, expired) before ``forget_before``.

        :param presume: as for :meth:`adopt`.
        """

    def renew(*, now: float, until: float) -> Deferred[None]:
        """This process lives: its lease lasts until then."""

    def end_lease(owner: str) -> Deferred[None]:
        """That process is known to be gone: its lease is over now."""

    def order(owner: str, words: Mapping[str, str], *, now: float) -> Deferred[None]:
        """Leave an order for another process, for at most a minute.

        :raises TooManyCalls: (through the Deferred) a thousand orders wait for it already.
        """

    def orders(*, now: float) -> Deferred[list[Mapping[str, str]]]:
        """Take the orders for this process, in the order in which they were given."""

    def check() -> Deferred[None]:
        """Whether the store can be read and written right now."""
