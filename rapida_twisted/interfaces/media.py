"""What carries a call's audio, and where such connections arrive."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.context import CallContext, EndReason

if TYPE_CHECKING:
    from rapida_twisted.interfaces.typed import MediaChannel, MediaSink, PolledReader

__all__ = ["ICallStarter", "IMediaChannel", "IMediaSink", "IPolledReader", "IReception"]


class IPolledReader(Interface):
    """A connection that the media clock may read itself, in place of the reactor.

    The same protocol gets the same bytes in the same order, whoever reads. :meth:`poll` may end the call.
    """

    polled: bool = Attribute("Whether the clock reads it now.")

    def take_over() -> None:
        """The clock reads from now on; the reactor no longer reports incoming data."""

    def give_back() -> None:
        """The reactor reads from now on. Does nothing if it already does, or if the connection is closing."""

    def poll() -> bool:
        """Read what has arrived, without waiting. True if anything had. Ends and errors are handled as usual."""


class IMediaChannel(Interface):
    """One media connection, as its call sees it: where the caller's audio comes from and goes to.

    A transport's attributes describe how it differs; no caller asks for its type.
    """

    transport_name: str = Attribute("'audiosocket' or 'websocket'.")
    peer: str = Attribute("The peer's address, as text.")
    format: AudioFormat = Attribute(
        "Encoding and rate on the wire, both ways. It may change once, before the first audio: the channel then calls"
        " the sink's format_changed()."
    )
    paced: bool = Attribute(
        "Whether the peer times the playing itself. If not, send_audio() is called with one frame each 20 ms;"
        " if so, with several frames ahead of time, and marks report what was heard."
    )
    reading: PolledReader | None = Attribute(
        "How the media clock may read the connection itself; None, or absent, where only the reactor can."
    )

    def send_audio(payload: bytes) -> None:
        """Send audio in the wire's format: one frame of 20 ms, or, when paced, a multiple of it.

        Never blocks, and never raises for a slow or closed peer: what can't be sent is dropped and counted.
        """

    def flush() -> None:
        """Have the peer drop what it has not played yet. Only paced channels have anything to do."""

    def mark(reached: Callable[[], None]) -> None:
        """Call ``reached`` when everything sent so far was played. A flush cancels it."""

    def hang_up() -> None:
        """End the connection in the protocol's own orderly way, after what was sent."""

    def abort() -> None:
        """End the connection at once."""


class IMediaSink(Interface):
    """A call, as its media channel sees it. All methods may be called at any time, also after the call's end."""

    def audio_received(payload: bytes) -> None:
        """Audio of the caller, in the channel's format, as long as the caller's packet."""

    def digit_received(digit: str) -> None:
        """The caller pressed one of ``0-9 A-D * #``."""

    def format_changed() -> None:
        """The channel has another format now."""

    def sending_paused(paused: bool) -> None:
        """The peer wants no more audio for now (True), or again (False). Paced channels only."""

    def media_ended(reason: EndReason, detail: str = "") -> None:
        """The connection is closed or closing: nothing more arrives, nothing more can be sent."""


class ICallStarter(Interface):
    """Starts the calls whose media is up. A connection that we make to Asterisk needs no more than this."""

    def start(context: CallContext, channel: MediaChannel) -> MediaSink:
        """Start a claimed call on a channel that is ready for audio."""

    def abandon(context: CallContext, reason: EndReason, detail: str = "") -> None:
        """The connection of a claimed call closed before :meth:`start`."""


class IReception(ICallStarter):
    """Where the media connections of Asterisk arrive: joins each to its registered call."""

    def claim(
        context_id: str, transport: str, peer: str, assistants: Collection[str] = ()
    ) -> Deferred[CallContext]:
        """Take a registered call for this connection, exactly once.

        :param assistants: the ids of those whose calls the connection may take; empty, or not passed: all.
        :return: fires with the claimed context, or fails with one of
            :class:`~rapida_twisted.errors.UnknownContext`, ``ContextExpired``, ``ContextClaimed``, ``Draining``,
            ``TooManyCalls``, ``StoreUnavailable``.
        """
