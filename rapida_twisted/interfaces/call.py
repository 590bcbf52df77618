"""A call, as its assistant sees it, and the assistant, as its call sees it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.interfaces.values import Playable, PlayOutcome, T

if TYPE_CHECKING:
    from rapida_twisted.interfaces.typed import Assistant, Call, Tap

__all__ = ["IAssistant", "ICall", "ICallPlumbing", "ITap"]


class ICall(Interface):
    """A call, as its assistant sees it: the same over every transport.

    A method that returns a Deferred fails through it; only what is wrong in the program itself (``TypeError``,
    ``ValueError``) is raised at once. After the call's end they fail with :class:`~rapida_twisted.errors.CallEnded`.
    """

    context: CallContext = Attribute("Caller, called number, assistant id, and the registration's variables.")
    rate_hz: int = Attribute("The rate of the samples that the assistant hears and plays.")
    queued_ms: float = Attribute("How much of what was played has not left yet, as far as known (ms).")
    heard_ms: float = Attribute(
        "How much audio the caller heard since the call began (ms), without the silence that the server adds. Over"
        " AudioSocket exact to a frame of 20 ms, over WebSocket to 40 ms."
    )
    ended: EndReason | None = Attribute("Why the call ended; None while it lasts.")
    reactor: Any = Attribute("The reactor, for timers and whatever else an assistant needs.")

    def play(audio: Playable, rate_hz: int | None = None) -> Deferred[PlayOutcome]:
        """Queue audio, to be heard after what was queued before.

        :param audio: samples (s16le mono) at ``rate_hz``, a numpy array of int16 or float32 (-1 to 1), a sound file's
            path, or an iterable or async iterable of samples. An iterable is read no faster than it is heard.
        :param rate_hz: the samples' rate; by default the assistant's own. A sound file has its own.
        :return: fires with the outcome. Cancelling it stops this audio alone. It fails with ``PlayoutFull`` if more
            than the limit is waiting already, with ``OSError`` if a file can't be opened, with ``ValueError`` if it is
            no sound file, and, after what came before was heard, with whatever an iterable raises. A failure that no
            code handles by the reactor's next turn ends the call with the reason ``assistant_failed``.
        :raises TypeError: this is nothing that can be played; ``ValueError``: it is a text, for instance.
        """

    def play_tone(hz: float, duration_ms: float, level_db: float = -10.0) -> Deferred[PlayOutcome]:
        """Queue a sine tone, as play() does.

        :param level_db: relative to a full-scale sine (negative).
        :raises ValueError: no such tone can be played.
        """

    def stop(playing: Deferred[PlayOutcome]) -> None:
        """Stop one play(): the Deferred fires with FLUSHED. What was queued after it goes on."""

    def queued() -> Deferred[None]:
        """Fires when each play() up to now has ended: heard, stopped, dropped or failed. At once if none is left.

        Live audio, and what is played later, do not count.
        """

    def wait(seconds: float) -> Deferred[None]:
        """Fires after this time, or fails with ``CallEnded`` when the call ends before."""

    def write(samples: bytes) -> None:
        """Live audio at the assistant's rate: heard as soon as possible, while nothing that was played is waiting.

        At most the live limit waits; older audio is dropped and counted, so that the delay can't grow.
        """

    def flush() -> float | None:
        """Barge-in: drop everything that waits to be heard, also what was sent ahead of time.

        Returns how much will not be heard (ms); None if that is not known, for a stream that has not ended.
        """

    def digits(
        count: int | None = None,
        timeout_s: float = 10.0,
        terminator: str = "#",
        *,
        pattern: str | None = None,
        on_digit: Callable[[str], object] | None = None,
    ) -> Deferred[str]:
        """Collect ``count`` digits, or those before the terminator, or what came within the time.

        Digits that came earlier and were not collected yet count. Collected digits still reach ``digit_received``.

        :param pattern: a regular expression; as soon as it matches all digits so far, they are the result.
        :param on_digit: called after each digit with all digits so far.
        :raises RuntimeError: another digits() is waiting; ``ValueError``: neither a count nor a pattern is given.
        """

    def run(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Run a coroutine of an asyncio library, as a Task of asyncio. The end of the call cancels it.

        Deferreds, such as those of this call, may be awaited in it, too.

        :return: fires with what it returns, or fails with what it raises. A failure that no code handles by the
            reactor's next turn ends the call, as that of play() does.
        :raises RuntimeError: the reactor is not asyncio's (``twistd --reactor=asyncio``); ``TypeError``: it is no
            coroutine.
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

    def tap(
        heard: Callable[[bytes], None] | None = None,
        said: Callable[[bytes], None] | None = None,
        rate_hz: int | None = None,
    ) -> Tap:
        """Listen in, with s16le mono, until the tap is stopped or the call ends. A call may have several taps.

        :param heard: called with each of the caller's packets.
        :param said: called once each 20 ms with what the caller hears, silence included.
        :param rate_hz: of the samples; by default the assistant's own rate now.
        """

    def hand_over(assistant: Assistant) -> None:
        """Another assistant answers from now on. Audio that the former one played is still heard; its ``answer()`` and
        ``digits()`` are cancelled, and its ``call_ended()`` is called at the call's end nevertheless."""

    def note(text: str) -> None:
        """Add a sentence to the call's record (``detail``): what went wrong although the call goes on."""


class ITap(Interface):
    """One listener to a call."""

    def stop() -> None:
        """Listen no more. Idempotent."""


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
