"""Listeners to both sides of a call."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface import implementer

from rapida_twisted.audio.convert import Converter, converter
from rapida_twisted.audio.formats import AudioFormat
from rapida_twisted.interfaces import ITap

__all__ = ["Tap"]

Listener = Callable[[bytes], None]


@implementer(ITap)
class Tap:
    """One listener to a call, at a rate of its own.

    :param wire: the call's format.
    :param heard: gets the caller's packets.
    :param said: gets each frame to the caller.
    :param stopped: called when the listening ends.
    """

    def __init__(
        self,
        wire: AudioFormat,
        rate_hz: int,
        heard: Listener | None,
        said: Listener | None,
        stopped: Callable[[Tap], None],
    ) -> None:
        self._format = AudioFormat("slin", rate_hz)
        self._heard = heard
        self._said = said
        self._stopped = stopped
        self.set_format(wire)

    def set_format(self, wire: AudioFormat) -> None:
        self._convert_heard: Converter | None = converter(wire, self._format)
        self._convert_said: Converter | None = converter(wire, self._format)

    def stop(self) -> None:
        self._heard = self._said = None
        self._stopped(self)

    def heard(self, payload: bytes) -> None:
        """A packet of the caller, in the wire's format."""
        if self._heard is not None:
            self._heard(payload if self._convert_heard is None else self._convert_heard(payload))

    def said(self, frame: bytes) -> None:
        """A frame that the caller hears now, in the wire's format."""
        if self._said is not None:
            self._said(frame if self._convert_said is None else self._convert_said(frame))
