"""Phone calls from Asterisk, over AudioSocket or chan_websocket, for an assistant in a Twisted program.

The public names. Each is imported when it is first used, so that ``import rapida_twisted`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapida_twisted.assistants.plugin import AssistantPlugin
    from rapida_twisted.context import CallContext, CallStatus, ContextStatus, Direction, EndReason
    from rapida_twisted.errors import (
        CallEnded,
        CallNotPlaced,
        ContextClaimed,
        ContextError,
        ContextExpired,
        Draining,
        PlayoutFull,
        RapidaError,
        SettingsError,
        StartError,
        StoreUnavailable,
        TooManyCalls,
        TransferRefused,
        UnknownContext,
        UpstreamFailed,
    )
    from rapida_twisted.interfaces import (
        AssistantEnvironment,
        IAssistant,
        IAssistantFactory,
        IAssistantMaker,
        ICall,
        ICallPlumbing,
        ICallStarter,
        ICallStore,
        IMediaChannel,
        IMediaSink,
        IReception,
        OutboundCall,
        Playable,
        PlayEnd,
        PlayOutcome,
    )
    from rapida_twisted.interfaces.typed import (
        Call,
        CallPlumbing,
        CallStarter,
        CallStore,
        MediaChannel,
        MediaSink,
        Reception,
    )
    from rapida_twisted.media.assistant import Assistant
    from rapida_twisted.protocols.audiosocket_app import AudioSocketFactory
    from rapida_twisted.protocols.chan_websocket_app import MediaClientFactory, MediaServerFactory
    from rapida_twisted.server.build import RapidaMedia
    from rapida_twisted.settings import Settings
    from rapida_twisted.store.url import open_store
    from rapida_twisted.testing import FakeCall

__version__ = "0.1.0"

__all__ = [
    "Assistant",
    "AssistantEnvironment",
    "AssistantPlugin",
    "AudioSocketFactory",
    "Call",
    "CallContext",
    "CallEnded",
    "CallNotPlaced",
    "CallPlumbing",
    "CallStarter",
    "CallStatus",
    "CallStore",
    "ContextClaimed",
    "ContextError",
    "ContextExpired",
    "ContextStatus",
    "Direction",
    "Draining",
    "EndReason",
    "FakeCall",
    "IAssistant",
    "IAssistantFactory",
    "IAssistantMaker",
    "ICall",
    "ICallPlumbing",
    "ICallStarter",
    "ICallStore",
    "IMediaChannel",
    "IMediaSink",
    "IReception",
    "MediaChannel",
    "MediaClientFactory",
    "MediaServerFactory",
    "MediaSink",
    "OutboundCall",
    "PlayEnd",
    "PlayOutcome",
    "Playable",
    "PlayoutFull",
    "RapidaError",
    "RapidaMedia",
    "Reception",
    "Settings",
    "SettingsError",
    "StartError",
    "StoreUnavailable",
    "TooManyCalls",
    "TransferRefused",
    "UnknownContext",
    "UpstreamFailed",
    "__version__",
    "open_store",
]

_HOMES = {
    **dict.fromkeys(
        ("Call", "CallPlumbing", "CallStarter", "CallStore", "MediaChannel", "MediaSink", "Reception"),
        "interfaces.typed",
    ),
    "Assistant": "media.assistant",
    "AssistantPlugin": "assistants.plugin",
    "AudioSocketFactory": "protocols.audiosocket_app",
    "FakeCall": "testing",
    "MediaClientFactory": "protocols.chan_websocket_app",
    "MediaServerFactory": "protocols.chan_websocket_app",
    "RapidaMedia": "server.build",
    "Settings": "settings",
    "open_store": "store.url",
}
_LIGHT = ("interfaces", "context", "errors")
"""Where every other name is."""

# Type checkers see the imports above alone: else each name would be Any to them, misspelt ones too.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for home in [_HOMES[name]] if name in _HOMES else _LIGHT:
            module = import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} does not find {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
