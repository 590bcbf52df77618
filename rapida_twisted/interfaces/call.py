"""A call, as its assistant sees it, and the assistant, as its call sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.interfaces.values import Playable, PlayOutcome

if TYPE_CHECKING:
    from rapida_twisted.interfaces.typed import Assistant, Call

__all__ = ["IAssistant", "ICall", "ICallPlumbing"]


class ICall(Interface):
    """A call, as its assistant sees it: the same over every transport."""

    context: CallContext = Attribute("Caller, called number, assistant id, and the registration's variables.")
    rate_hz: int = Attribute("The rate of the samples that the assistant hears and plays.")
    queued_ms: float = Attribute("How much of what was played has not left yet, as far as known (ms).")
    ended: EndReason | None = Attribute("Why the call ended; None while it lasts.")
    reactor: Any = Attribute("The reactor, for timers and whatever else an assistant needs.")

    def play(audio: Playable, rate_hz: int | None = None) -> Deferred[PlayOutcome]:
        """Queue audio, to be heard after what was queued before.

        :param audio: samples (s16le mono) at ``rate_hz``, a WAV file's path, or an iterable or async iterable of
            such samples. An iterable is read no faster than it is heard.
        :param rate_hz: the samples' rate; by default the assistant's own. A WAV file has its own.
        :return: fires with PLAYED or FLUSHED. Cancelling it stops this audio alone.
        :raises PlayoutFull: more than the limit is waiting already.
        :raises CallEnded: the call is over.
        :raises OSError: the file can't be opened; ``ValueError``: it is no sound file.
        """

    def write(samples: bytes) -> None:
        """Live audio at the assistant's rate: heard as soon as possible, while nothing that was played is waiting.

        At most the live limit waits; older audio is dropped and counted, so that the delay can't grow.
        """

    def flush() -> float:
        """Barge-in: drop everything that waits to be heard. Returns how much that was (ms)."""

    def digits(count: int, timeout_s: float = 10.0, terminator: str = "#") -> Deferred[str]:
        """Collect ``count`` digits, or those before the terminator, or what came within the time.

        Digits that came earlier and were not collected yet count. Collected digits still reach ``digit_received``.
        """

    def transfer(dial_string: str) -> Deferred[None]:
        """Transfer the caller: the media ends, and the dialplan asks the server what to dial next.

        :param dial_string: such as ``PJSIP/200``; the settings list which are allowed.
        :return: fires when the call is over, or fails, and the call goes on, with
            :class:`~rapida_twisted.errors.TransferRefused` or ``StoreUnavailable``.
        """

    def hang_up() -> Deferred[None]:
        """End the call. Fires when it is over; queued audio is dropped."""


class ICallPlumbing(ICall):
    """The same call, for assistants that stand between a call and something else: a recorder, a bridge.

    Adapt the call to get it: ``ICallPlumbing(call)``.
    """

    def fetch(source: Callable[[], bytes | None] | None) -> None:
        """Live audio that is fetched when it is due, so that it is queued in one place only; None to stop.

        :param source: called while nothing that was played is waiting: once each 20 ms, or, on channels that are sent
            ahead, for as long as it returns audio. Returns 20 ms at the assistant's rate, or None if it has none now.
        """

    def tap(heard: Callable[[bytes], None] | None, said: Callable[[bytes], None] | None) -> None:
        """Listen in, with s16le mono at :attr:`rate_hz`; None to stop.

        :param heard: called with each of the caller's packets.
        :param said: called once each 20 ms with what leaves, silence included.
        """

    def hand_over(assistant: Assistant) -> None:
        """Another assistant answers from now on. Audio that the former one played is still heard; its ``answer()`` is
        cancelled, and its ``call_ended()`` is called at the call's end nevertheless."""

    def note(text: str) -> None:
        """Add a sentence to the call's record (``detail``): what went wrong although the call goes on."""


class IAssistant(Interface):
    """Answers one call. Its factory makes one for each call. Callbacks run in the reactor's thread."""

    rate_hz: int | None = Attribute("The rate (Hz) of the samples it hears and plays; None: the wire's own.")

    async def answer(call: Call) -> None:
        """Runs while the call lasts, and is cancelled when it ends. Its return does not end the call."""

    def audio_received(call: Call, samples: bytes) -> None:
        """Audio of the caller: s16le mono at the assistant's rate, as long as the caller's packet."""

    def digit_received(call: Call, digit: str) -> None:
        """The caller pressed one of ``0-9 A-D * #``."""

    def call_ended(call: Call, reason: EndReason) -> None:
        """The call is over, whichever side ended it. Called exactly once."""
