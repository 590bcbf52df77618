"""Checks what makes assistants: at the start of the server where that is possible, else when a call is registered."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError, UnknownAssistant
from rapida_twisted.interfaces import IAssistantMaker, typed

__all__ = ["FunctionMaker", "MakeAssistant", "checked_maker"]

MakeAssistant = Callable[[CallContext], typed.Assistant]

_RATES_HZ = range(1000, 192_001)
_METHODS = ("answer", "audio_received", "digit_received", "call_ended")


def checked_maker(made_by: Any, spec: str, *, has_asyncio: bool) -> MakeAssistant:
    """A class, or a function that returns an assistant, called with what it takes.

    :param spec: for errors.
    :param has_asyncio: whether the server runs on asyncio's reactor.
    :raises SettingsError: it makes no assistants, as far as that is known without a call.
    """
    if not callable(made_by):
        raise SettingsError(f"the assistant {spec!r} is no class and no function")
    if IAssistantMaker.providedBy(made_by):
        return made_by
    if inspect.isclass(made_by):
        _check_class(made_by, spec)
        _check_asyncio(made_by, spec, has_asyncio)
    else:
        _check_function(made_by, spec)
    make = made_by if _takes_context(spec, made_by) else lambda context: made_by()
    return make if inspect.isclass(made_by) else FunctionMaker(make, spec, has_asyncio=has_asyncio)


@implementer(IAssistantMaker)
class FunctionMaker:
    """A function that returns assistants.

    What it returns is known only when it is called. So it is called for a registration, too, until it has returned an
    assistant, and again after it has not: a call that no assistant would answer is not registered.
    """

    _log = Logger()

    def __init__(self, make: MakeAssistant, spec: str, *, has_asyncio: bool) -> None:
        self._make = make
        self._spec = spec
        self._has_asyncio = has_asyncio
        self._works = False

    def __call__(self, context: CallContext) -> typed.Assistant:
        self._works = False
        made: Any = self._make(context)
        if not callable(getattr(made, "answer", None)):
            kind = "None" if made is None else f"{type(made).__name__}, which has no answer()"
            raise SettingsError(f"the assistant {self._spec!r} can't be made: its function returned {kind}")
        _check_asyncio(made, self._spec, self._has_asyncio)
        self._works = True
        return made  # type: ignore[no-any-return]

    async def prepare(self, context: CallContext) -> CallContext:
        if not self._works:
            try:
                self(context)
            except SettingsError as error:
                self._log.error("call {id}: refused: {error}", id=context.context_id, error=str(error))
                raise UnknownAssistant(str(error)) from None
        return context

    def health(self) -> Mapping[str, Any]:
        return {}

    async def close(self) -> None:
        """Does nothing."""


def _check_class(made_by: type, spec: str) -> None:
    missing = [method for method in _METHODS if not callable(getattr(made_by, method, None))]
    if missing:
        raise SettingsError(
            f"the class {spec!r} is no assistant, for it has no {missing[0]}(): derive it from rapida_twisted.Assistant"
        )
    answer: Any = made_by.answer  # type: ignore[attr-defined]
    if not inspect.iscoroutinefunction(answer) and _returns_nothing(answer):
        raise SettingsError(f"the answer() of {spec!r} is no coroutine: write 'async def answer(self, call)'")
    rate_hz = getattr(made_by, "rate_hz", None)
    if not (rate_hz is None or isinstance(rate_hz, property) or rate_hz in _RATES_HZ):
        raise SettingsError(f"the rate_hz of {spec!r} is {rate_hz!r}: it is a sample rate in Hz, such as 8000 or 16000")


def _check_asyncio(assistant: object, spec: str, has_asyncio: bool) -> None:
    if getattr(assistant, "needs_asyncio", False) and not has_asyncio:
        raise SettingsError(
            f"the assistant {spec!r} needs asyncio: start the server with script/serve or 'twistd --reactor=asyncio'"
        )


def _check_function(function: Callable[..., Any], spec: str) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise SettingsError(f"the assistant {spec!r} can't be made: its function is a coroutine or a generator")
    if _returns_nothing(function):
        raise SettingsError(f"the assistant {spec!r} can't be made: its function always returns None")


def _returns_nothing(function: Callable[..., Any]) -> bool:
    """Whether each return of a Python function returns the constant None, as where ``return`` was forgotten."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return False
    instructions = list(dis.get_instructions(code))
    # Python 3.12 and 3.13 have one instruction for a constant's load and return. A return that is jumped to has several
    # values.
    returned = [
        each if each.opname == "RETURN_CONST" or each.is_jump_target else before
        for before, each in pairwise(instructions)
        if each.opname in ("RETURN_CONST", "RETURN_VALUE")
    ]
    return bool(returned) and all(each.opname.endswith("_CONST") and each.argval is None for each in returned)


def _takes_context(spec: str, made_by: Callable[..., Any]) -> bool:
    """Whether it takes the call's context: it has a parameter of that name, or one without a default.

    :raises SettingsError: it needs further arguments.
    """
    try:
        signature = inspect.signature(made_by)
    except (TypeError, ValueError):
        return False
    first = next(iter(signature.parameters.values()), None)
    takes = first is not None and (
        first.name == "context"
        or (first.default is first.empty and first.kind not in (first.VAR_POSITIONAL, first.VAR_KEYWORD))
    )
    try:
        signature.bind(*[None] * takes)
    except TypeError as error:
        raise SettingsError(
            f"the assistant {spec!r} can't be made: it is called with the call's context or with nothing ({error})"
        ) from None
    return takes
