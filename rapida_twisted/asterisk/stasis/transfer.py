"""Where a channel in our Stasis application goes when its media is over: on in the dialplan, elsewhere, or home."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from rapida_twisted.asterisk.ari.errors import AriConflict, AriError, AriNotFound
from rapida_twisted.asterisk.stasis.call import StasisCall, all_of
from rapida_twisted.context import ContextStatus
from rapida_twisted.errors import RapidaError

__all__ = ["move_on"]

REDIRECT_S = 10.0
"""How long the far end may take to leave once it was told to call elsewhere."""
PAUSES_S = (0.5, 2.0)
"""Before ARI is asked again what it could not be asked just now."""

_ROUTED = re.compile(r"PJSIP/(?!sips?:)[^/]*@.*", re.IGNORECASE)
"""A number and the trunk to it: Asterisk would send it to the far end as it is, who knows nothing of our trunks
(``channels/chan_pjsip.c``: ``transfer()``). A URI can be sent, and an endpoint by its name, for its contact's URI."""
_LOCAL = re.compile(r"Local/([^@/]+)@([^@/]+)(/[a-z]+)?", re.IGNORECASE)
_log = Logger()


async def move_on(call: StasisCall, *, failed: bool) -> bool:
    """Send a call's caller on; whether it has left, or is about to.

    An inbound call goes on in the dialplan, with ``RAPIDA_NEXT`` and ``RAPIDA_ERROR`` set, be it to nothing. One that
    we placed goes to ``Local/EXTEN@CONTEXT`` by itself, to any other dial string by telling its far end to call there,
    and without one it is hung up.

    :param failed: whether the call had no media.
    """
    next_dial, failed = await _next(call, failed)
    way = _inbound if call.inbound else _outbound
    try:
        await way(call, next_dial, failed)
    except (AriNotFound, AriConflict):
        pass  # It hung up, or somebody else moved it on.
    except AriError as error:
        _log.warn(
            "call {id}: {channel} can't be moved on from Stasis: {error}; trying again later, or hang it up by hand",
            id=call.name, channel=call.channel.name, error=str(error),
        )  # fmt: skip
        return False
    return True


async def _next(call: StasisCall, failed: bool) -> tuple[str, bool]:
    """Where to, and whether something went wrong."""
    if not call.context_id:
        return "", True
    try:
        context = await call.kit.store.get(call.context_id)
    except RapidaError as error:
        _log.warn("call {id}: nobody knows whether it is to be transferred: {error}", id=call.name, error=str(error))
        return "", True
    if context.next_dial:
        return context.next_dial, False
    # Media that nobody took, since it came too late or the server was full, was no media.
    unheard = context.status in (ContextStatus.PENDING, ContextStatus.EXPIRED)
    return "", unheard or (failed and context.status is not ContextStatus.COMPLETED)


async def _inbound(call: StasisCall, next_dial: str, failed: bool) -> None:
    ari, channel_id = call.kit.ari, call.channel.id
    await _insisting(
        call,
        lambda: all_of(
            ari.set_variable(channel_id, "RAPIDA_NEXT", next_dial),
            ari.set_variable(channel_id, "RAPIDA_ERROR", "1" if failed else ""),
        ),
    )
    await _insisting(call, lambda: ari.continue_in_dialplan(channel_id))


async def _outbound(call: StasisCall, next_dial: str, failed: bool) -> None:
    ari, channel_id = call.kit.ari, call.channel.id
    local = _LOCAL.fullmatch(next_dial)
    if local is not None:
        await _insisting(call, lambda: ari.continue_in_dialplan(channel_id, local[2], local[1]))
    elif not next_dial or not await _redirected(call, next_dial):
        await _insisting(call, lambda: ari.hang_up(channel_id))


async def _redirected(call: StasisCall, next_dial: str) -> bool:
    """Tell the far end to call elsewhere; whether it left. Asterisk does not tell what the far end thinks of it."""
    ari, why = call.kit.ari, "the far end knows nothing of our trunks"
    try:
        if not _ROUTED.fullmatch(next_dial):
            # Asterisk waits for the far end's answer on the channel itself: in a bridge two would read from it.
            await ari.destroy_bridge(call.bridge_id)
            await ari.redirect(call.channel.id, next_dial)
            if await call.until(lambda: call.left, REDIRECT_S):
                return True
            why = f"the far end is still here after {REDIRECT_S:g} s: it refused, or Asterisk has no res_pjsip_refer"
    except (AriNotFound, AriConflict):
        raise
    except AriError as error:
        why = error.message
    _log.warn(
        "call {id}: can't be transferred to {dial} from Stasis ({why}), so it is hung up; Local/EXTEN@CONTEXT always"
        " can be",
        id=call.name, dial=next_dial, why=why,
    )  # fmt: skip
    return False


async def _insisting(call: StasisCall, asking: Callable[[], Awaitable[Any]]) -> None:
    """Ask, and ask again a little later if ARI could not be asked; everything here may be done twice."""
    for pause_s in PAUSES_S:
        try:
            await asking()
        except AriError as error:
            if not error.retryable:
                raise
            await deferLater(call.kit.reactor, pause_s)
            if call.left:
                return
        else:
            return
    await asking()
