"""A connection that we make to another server, whose assistant answers there: we are the Asterisk of that server."""

from __future__ import annotations

from zope.interface import Attribute, Interface

from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.errors import UpstreamFailed

__all__ = ["IFarEnd", "IFarEndUser"]


class IFarEnd(Interface):
    """The other server's assistant."""

    format: AudioFormat = Attribute("Encoding and rate of the connection, both ways.")
    queued_ms: float = Attribute("Audio that it sent and that was not taken yet (ms).")
    dropped_ms: float = Attribute("Audio that it sent and that was dropped, since too much was waiting (ms).")
    shifted: int = Attribute("Frames dropped or repeated (both counted up) to follow its clock.")

    def send_audio(payload: bytes) -> bool:
        """Send the caller's audio, in the connection's format. False if it was dropped.

        Never blocks and never raises, also when the connection is closed.
        """

    def send_digit(digit: str) -> None:
        """Send a key that the caller pressed."""

    def take() -> bytes | None:
        """20 ms are due: the next frame that the caller is to hear, or None."""

    def hang_up() -> None:
        """The caller hung up: end the connection as Asterisk does. No event follows."""

    def abort() -> None:
        """End the connection at once. No event follows."""


class IFarEndUser(Interface):
    """Receives the events of a far end, once it holds it."""

    def far_end_flushed() -> None:
        """The assistant there was interrupted: drop what it sent and the caller has not heard yet."""

    def far_end_hung_up(detail: str) -> None:
        """The assistant there ended the call in an orderly way. The connection is closed; called once, last.

        :param detail: a sentence with the explanation that it gave, or empty.
        """

    def far_end_failed(failure: UpstreamFailed) -> None:
        """The connection is lost; called once, last."""
