"""What a server process consists of, connected and not started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rapida_twisted.assistants.registry import Assistants
from rapida_twisted.asterisk.outbound.calls import OutboundCalls
from rapida_twisted.asterisk.vault.vault import Vault
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.interfaces.typed import CallStore
from rapida_twisted.media.calls import Calls
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.media.governor import Governor
from rapida_twisted.media.idle import IdleWatch
from rapida_twisted.observe.sampler import Sampler
from rapida_twisted.ports.rejection_log import RejectionLog
from rapida_twisted.ports.server_ports import ServerPorts
from rapida_twisted.protocols.audiosocket_app import AudioSocketFactory
from rapida_twisted.server.call_control import CallControl
from rapida_twisted.server.lease import Lease
from rapida_twisted.server.preflight import Keys
from rapida_twisted.server.reception import Reception
from rapida_twisted.server.role import ProcessRole
from rapida_twisted.web.site import RapidaSite
from rapida_twisted.webhook.status import StatusWebhook

__all__ = ["Components", "ServerState"]


@dataclass
class ServerState:
    """Whether a server stops, and how."""

    draining: bool = False
    handing_over: bool = False
    """Another process takes the place of this one."""

    @property
    def refuses_calls(self) -> bool:
        """Whether to send new calls elsewhere. While another process has the ports, calls reach this one only over a
        connection that is kept open, and are taken."""
        return self.draining and not self.handing_over


@dataclass(frozen=True, kw_only=True)
class Components:
    """The components of a server process."""

    role: ProcessRole
    state: ServerState
    assistants: Assistants
    store: CallStore
    lease: Lease
    calls: Calls
    clock: MediaClock
    governor: Governor
    idle_watch: IdleWatch
    sampler: Sampler
    reception: Reception
    vault: Vault
    outbound: OutboundCalls
    webhook: StatusWebhook
    webhook_enabled: bool
    control: CallControl
    rejections: RejectionLog
    ports: ServerPorts
    audiosocket: AudioSocketFactory
    make_site: Callable[[ApiKeys], RapidaSite]
    http_pool: Any
    """The HTTP client's persistent connections."""
    check_start: Callable[[], Keys]
    """See :func:`~rapida_twisted.server.preflight.check_start`."""
    banner: Callable[[Keys], str]
    """See :func:`~rapida_twisted.server.banner.banner_text`."""
