"""Phone calls from Asterisk, over AudioSocket or chan_websocket, in the hands of a Twisted program.

The public names; the modules they come from say more.
"""

from rapida_twisted._version import __version__
from rapida_twisted.context import CallContext, ContextStatus, Direction, EndReason
from rapida_twisted.errors import RapidaError
from rapida_twisted.interfaces import (
    AssistantHouse,
    IAssistant,
    IAssistantFactory,
    ICall,
    ICallStore,
    IMediaChannel,
    IMediaSink,
    IReception,
    Spoken,
)
from rapida_twisted.media.assistant import Assistant

__all__ = [
    "Assistant",
    "AssistantHouse",
    "CallContext",
    "ContextStatus",
    "Direction",
    "EndReason",
    "IAssistant",
    "IAssistantFactory",
    "ICall",
    "ICallStore",
    "IMediaChannel",
    "IMediaSink",
    "IReception",
    "RapidaError",
    "Spoken",
    "__version__",
]
