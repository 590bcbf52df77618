"""How assistants are named, made and supplied with what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from zope.interface import Attribute, Interface

from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces.values import EntryKind

if TYPE_CHECKING:
    from rapida_twisted.interfaces.typed import Assistant

__all__ = ["AssistantEnvironment", "Counters", "IAssistantFactory", "IAssistantMaker"]


class Counters(Protocol):
    """What assistants may count in the server's metrics."""

    def upstream(self, assistant_id: str, step: str, outcome: str) -> None:
        """Count a request to another server: what it was for (``register``, ``connect``), and its outcome in a word."""


class _NoCounters:
    def upstream(self, assistant_id: str, step: str, outcome: str) -> None:
        """Count nothing."""


def _absent(*arguments: Any) -> Any:
    raise SettingsError("this assistant needs what only a server offers")


@dataclass(frozen=True)
class AssistantEnvironment:
    """What the server offers to an assistant's factory."""

    reactor: Any
    state_dir: Path
    """A directory that the server may write to; it may not exist yet."""
    has_asyncio: bool = True
    """Whether assistants can use asyncio: the server runs on asyncio's reactor."""
    settings: Any = None
    """The factory's own group of settings; None if it has none."""
    check_transfer: Callable[[str], None] = lambda dial_string: None
    """Raises :class:`~rapida_twisted.errors.TransferRefused` for a dial string that the settings do not allow."""
    counters: Counters = _NoCounters()  # noqa: RUF009
    """Part of the server's metrics."""
    assistant: Callable[[str], Callable[[CallContext], Assistant]] = _absent
    """Makes another assistant, named as on the command line, for one that wraps or replaces it.

    :raises SettingsError: it is not known, or can't be used so."""
    http_client: Callable[[], Any] = _absent
    """Makes an HTTP client: treq's requests, verified against the configured authorities, none repeated on its own.
    Close it in the maker's ``close()``, by its own ``close()``."""
    tls_options: Callable[[str], Any] = _absent
    """How to verify a host that is connected to without that client, for an endpoint of Twisted.

    :raises ValueError: no certificate can be for such a name."""
    add_resource: Callable[[str, Any], None] = lambda path, resource: None
    """``add_resource(path, resource)`` serves a ``twisted.web`` resource at ``/v1/assistants/PATH``. The server asks
    for no API key there."""
    record: Callable[[str, EntryKind, str], None] = lambda context_id, kind, text: None
    """``record(context_id, kind, text)`` adds an entry to a call's journal, see
    :class:`~rapida_twisted.interfaces.store.ICallJournal`. Never raises or waits: an entry that the store does not take
    is lost, and logged."""


class IAssistantMaker(Interface):
    """Makes the assistants of one rule. A plain function will do unless it also prepares calls or reports health."""

    def __call__(context: CallContext) -> Assistant:
        """The assistant of one call."""

    async def prepare(context: CallContext) -> CallContext:
        """Called when a call is registered, before its contextId is given away. Returns the context to keep.

        :raises UpstreamFailed: the call would not be answered, so it is not registered.
        """

    def health() -> Mapping[str, Any]:
        """Its state, for ``/readyz``, as JSON values; empty if it has nothing to report."""

    async def close() -> None:
        """The server stops; no call is left."""


class IAssistantFactory(Interface):
    """A kind of assistant that can be named on the command line as ``name`` or ``name:argument``.

    Found through ``twisted.plugin``: an instance at the top level of a module in ``twisted/plugins/`` that also
    provides ``twisted.plugin.IPlugin``.
    """

    name: str = Attribute("Its name: letters, digits and dashes.")
    usage: str = Attribute("One line for --help, such as 'play:FILE  plays a WAV file, then hangs up'.")

    def configure(argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], Assistant]:
        """Called once, at the start of the server, with the text behind the colon (or an empty one).

        :return: makes the assistant of one call; it may provide :class:`IAssistantMaker`.
        :raises SettingsError: the argument can't be used; the text is one sentence that says why.
        """
