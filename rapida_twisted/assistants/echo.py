"""``echo``: what the caller says comes back."""

from __future__ import annotations

from collections.abc import Callable

from twisted.plugin import IPlugin
from zope.interface import implementer

from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, IAssistant, IAssistantFactory, ICall
from rapida_twisted.media.assistant import Assistant

__all__ = ["Echo", "EchoFactory"]


class Echo(Assistant):
    """Says what it hears, at once."""

    def audio_received(self, call: ICall, samples: bytes) -> None:
        """Back with it."""
        call.write(samples)


@implementer(IPlugin, IAssistantFactory)
class EchoFactory:
    """Makes :class:`Echo`."""

    name = "echo"
    usage = "echo  says what it hears"

    def configure(self, argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], IAssistant]:
        """It takes no argument."""
        if argument:
            raise SettingsError(f"echo takes no argument, and got {argument!r}")
        return lambda context: Echo()
