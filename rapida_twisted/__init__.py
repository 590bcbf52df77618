"""Phone calls from Asterisk, over AudioSocket or chan_websocket, in the hands of a Twisted program.

The public names; the modules they come from say more.
"""

from rapida_twisted.context import CallContext, ContextStatus, Direction, EndReason
from rapida_twisted.errors import RapidaError
from rapida_twisted.interfaces import (
    AssistantEnvironment,
    IAssistant,
    IAssistantFactory,
    ICall,
    ICallPlumbing,
    ICallStarter,
    ICallStore,
    IMediaChannel,
    IMediaSink,
    IReception,
    PlayOutcome,
)
from rapida_twisted.media.assistant import Assistant

__version__ = "0.1.0"

__all__ = [
    "Assistant",
    "AssistantEnvironment",
    "CallContext",
    "ContextStatus",
    "Direction",
    "EndReason",
    "IAssistant",
    "IAssistantFactory",
    "ICall",
    "ICallPlumbing",
    "ICallStarter",
    "ICallStore",
    "IMediaChannel",
    "IMediaSink",
    "IReception",
    "PlayOutcome",
    "RapidaError",
    "__version__",
]
