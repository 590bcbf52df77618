"""Every plug point. Any object that provides one of these interfaces can replace ours."""

from rapida_twisted.interfaces.assistant import AssistantEnvironment, Counters, IAssistantFactory, IAssistantMaker
from rapida_twisted.interfaces.call import IAssistant, ICall, ICallPlumbing, ITap
from rapida_twisted.interfaces.far_end import IFarEnd, IFarEndUser
from rapida_twisted.interfaces.media import ICallStarter, IMediaChannel, IMediaSink, IPolledReader, IReception
from rapida_twisted.interfaces.outbound import IOutbound, OutboundCall
from rapida_twisted.interfaces.registrar import IRegistrar
from rapida_twisted.interfaces.store import (
    ICallJournal,
    ICallStore,
    IContextStore,
    ILeaseStore,
    INoticeStore,
    IOrderStore,
)
from rapida_twisted.interfaces.values import (
    Adopted,
    EntryKind,
    JournalEntry,
    Notice,
    Playable,
    PlayEnd,
    PlayOutcome,
    Swept,
)

__all__ = [
    "Adopted", "AssistantEnvironment", "Counters", "EntryKind", "IAssistant", "IAssistantFactory", "IAssistantMaker",
    "ICall", "ICallJournal", "ICallPlumbing", "ICallStarter", "ICallStore", "IContextStore", "IFarEnd", "IFarEndUser",
    "ILeaseStore", "IMediaChannel", "IMediaSink", "INoticeStore", "IOrderStore", "IOutbound", "IPolledReader",
    "IReception", "IRegistrar", "ITap", "JournalEntry", "Notice", "OutboundCall", "PlayEnd", "PlayOutcome", "Playable",
    "Swept",
]  # fmt: skip
