"""Finds the assistant that answers an id: from ``--assistant`` to objects."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from twisted.plugin import getPlugins

from rapida_twisted.assistants.makers import MakeAssistant, checked_maker
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, IAssistantFactory, IAssistantMaker, typed

__all__ = ["Assistants", "MakeAssistant", "known_factories", "make_assistants", "parse_assistant", "parse_rules"]

_NO_GROUPS: Mapping[str, Any] = MappingProxyType({})

_OTHERS = "*"
_MODULE_AND_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Assistants:
    """The assistants of all ids.

    :param makers: by id; ``*`` is every other.
    """

    def __init__(self, makers: dict[str, MakeAssistant]) -> None:
        self._makers = makers

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all rules, with ``*`` if there is one for it."""
        return tuple(self._makers)

    def knows(self, assistant_id: str) -> bool:
        """Whether an assistant answers this id. ``*`` itself is no id."""
        return assistant_id != _OTHERS and (assistant_id in self._makers or _OTHERS in self._makers)

    def make(self, context: CallContext) -> typed.Assistant:
        """The assistant of one call.

        :raises SettingsError: no assistant answers its id (any more).
        """
        maker = self._maker_of(context)
        if maker is None:
            raise SettingsError(f"nobody answers the id {context.assistant_id!r}")
        assistant: typed.Assistant = maker(context)
        return assistant

    async def prepare(self, context: CallContext) -> CallContext:
        """Prepare a call while it is registered, see :class:`IAssistantMaker`. Returns the context to keep.

        :raises UpstreamFailed: the call would not be answered.
        """
        maker = self._maker_of(context)
        return await maker.prepare(context) if IAssistantMaker.providedBy(maker) else context

    def health(self) -> dict[str, Mapping[str, Any]]:
        """The state of each maker that reports one, by the id of its rule."""
        reports = {name: maker.health() for name, maker in self._makers.items() if IAssistantMaker.providedBy(maker)}
        return {name: health for name, health in reports.items() if health}

    async def close(self) -> None:
        """Close all makers: the server stops, and no call is left."""
        for maker in self._makers.values():
            if IAssistantMaker.providedBy(maker):
                await maker.close()

    def _maker_of(self, context: CallContext) -> Any:
        return self._makers.get(context.assistant_id) or self._makers.get(_OTHERS)


def known_factories() -> dict[str, IAssistantFactory]:
    """The assistants that ship and those of other plugins, by name."""
    return {factory.name: factory for factory in getPlugins(IAssistantFactory)}


def parse_rules(
    rules: str | Iterable[str], environment: AssistantEnvironment, groups: Mapping[str, Any] = _NO_GROUPS
) -> Assistants:
    """Parse ``ID=NAME``, ``ID=NAME:ARGUMENT`` and ``ID=module:Class``: a list, or one text separated by commas.

    :param groups: settings by the name of the assistant that gets them.
    :raises SettingsError: one of them can't be used; the text is one sentence.
    """
    named: dict[str, str] = {}
    for rule in rules.split(",") if isinstance(rules, str) else rules:
        assistant_id, equals, spec = (part.strip() for part in rule.partition("="))
        if not (assistant_id and equals and spec):
            raise SettingsError(f"--assistant {rule!r} can't be used: it must be ID=NAME, as in '*=greeter'")
        if assistant_id in named:
            raise SettingsError(f"--assistant names the id {assistant_id!r} twice")
        named[assistant_id] = spec
    if not named:
        raise SettingsError("nobody answers: --assistant must name at least one, as in '*=greeter'")
    return make_assistants(named, environment, groups)


def make_assistants(
    given: Mapping[str, str | Callable[..., typed.Assistant]],
    environment: AssistantEnvironment,
    groups: Mapping[str, Any] = _NO_GROUPS,
) -> Assistants:
    """The assistants of a server, by the id that each answers (``*``: every other).

    :param given: assistants named as on the command line, or classes, or functions that return one; both are called
        with the call's context or with nothing.
    :raises SettingsError: one of them can't be used; the text is one sentence.
    """
    return Assistants(
        {
            assistant_id: parse_assistant(assistant, environment, groups)
            if isinstance(assistant, str)
            else checked_maker(
                assistant,
                getattr(assistant, "__qualname__", type(assistant).__qualname__),
                has_asyncio=environment.has_asyncio,
            )
            for assistant_id, assistant in given.items()
        }
    )


def parse_assistant(
    spec: str, environment: AssistantEnvironment, groups: Mapping[str, Any] = _NO_GROUPS
) -> MakeAssistant:
    """Parse ``NAME``, ``NAME:ARGUMENT`` or ``module:Class``.

    :raises SettingsError: it is not known, or can't be used so.
    """
    name, _, argument = spec.partition(":")
    factories = known_factories()
    factory = factories.get(name)
    if factory is not None:
        own = replace(
            environment, settings=groups.get(name), assistant=lambda inner: parse_assistant(inner, environment, groups)
        )
        return checked_maker(factory.configure(argument, own), spec, has_asyncio=environment.has_asyncio)
    if _MODULE_AND_NAME.fullmatch(spec):
        return checked_maker(_imported(spec), spec, has_asyncio=environment.has_asyncio)
    raise SettingsError(
        f"the assistant {spec!r} is not known; known are {', '.join(sorted(factories))}, and your own as module:Class"
    )


def _imported(spec: str) -> Any:
    """A user's own assistant: a class, or a function that returns one."""
    module_name, _, name = spec.partition(":")
    if "" not in sys.path and "." not in sys.path:
        # Like "python -m": modules in the current directory can be imported.
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        known = ", ".join(sorted(known_factories()))
        raise SettingsError(
            f"the assistant {spec!r} can't be imported: {type(error).__name__}: {error} (known by name are {known})"
        ) from error
    if not hasattr(module, name):
        raise SettingsError(f"the assistant {spec!r} is not there: module {module_name} has no {name}")
    return getattr(module, name)
