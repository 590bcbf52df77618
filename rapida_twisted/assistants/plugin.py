"""Names an assistant for ``--assistant`` without importing it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from twisted.plugin import IPlugin
from zope.interface import implementer

from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces.assistant import AssistantEnvironment, IAssistantFactory

if TYPE_CHECKING:
    from rapida_twisted.interfaces.typed import Assistant

__all__ = ["AssistantPlugin"]


@implementer(IPlugin, IAssistantFactory)
class AssistantPlugin:
    """Belongs at the top level of a module in ``twisted/plugins/``. Listing plugins stays fast, since the assistant's
    own module is imported only when a rule names it.

    :param name: letters, digits and dashes.
    :param usage: one line for ``--help``, such as ``play:FILE  plays a WAV file, then hangs up``.
    :param module: has a function ``configure(argument, environment)``: see :class:`IAssistantFactory`.
    """

    def __init__(self, name: str, usage: str, module: str) -> None:
        self.name = name
        self.usage = usage
        self._module = module

    def configure(self, argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], Assistant]:
        try:
            module = import_module(self._module)
        except ImportError as error:
            raise SettingsError(f"the assistant {self.name!r}: {self._module} can't be imported: {error}") from error
        if not hasattr(module, "configure"):
            raise SettingsError(f"the assistant {self.name!r}: {self._module} has no configure(argument, environment)")
        make: Callable[[CallContext], Assistant] = module.configure(argument, environment)
        return make
