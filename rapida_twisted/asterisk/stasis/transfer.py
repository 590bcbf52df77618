"""Sends a caller from our Stasis application on: to the dialplan, to another destination, or to the end of the call."""

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
"""How long the far end may take to leave after a redirect."""
PAUSES_S = (0.5, 2.0)
"""The pauses before retries."""

_ROUTED = re.compile(r"PJSIP/(?!sips?:)[^/]*@.*", re.IGNORECASE)
"""A number and its trunk: Asterisk would send it unchanged to the far end, which does not know our trunks
(``channels/chan_pjsip.c``: ``transfer()``). Asterisk can send a URI, and an endpoint's name as its contact's URI."""
_LOCAL = re.compile(r"Local/([^@/]+)@([^@/]+)(/[a-z]+)?", re.IGNORECASE)
_log = Logger()


async def move_on(call: StasisCall, *, failed: bool) -> bool:
    """Send a call's caller on; returns whether it has left, or is about to.

    An inbound call always continues in the dialplan, with ``RAPIDA_NEXT`` and ``RAPIDA_ERROR`` set. An outbound call
    goes to ``Local/EXTEN@CONTEXT`` by itself, to any other dial string by a redirect of its far end, and is hung up
    without a dial string.

    :param failed: whether the call had no media.
    """
    next_dial, failed = await _next(call, failed)
    send_on = _inbound if call.inbound else _outbound
    try:
        await send_on(call, next_dial, failed)
    except (AriNotFound, AriConflict):
        pass  # The caller hung up, or left the application already.
    except AriError as error:
        _log.warn(
            "call {id}: cannot move {channel} on from Stasis: {error}; trying again later",
            id=call.name, channel=call.channel.name, error=str(error),
        )  # fmt: skip
        return False
    return True


async def _next(call: StasisCall, failed: bool) -> tuple[str, bool]:
    """The dial string, and whether the call failed."""
    if not call.context_id:
        return "", True
    try:
        context = await call.kit.store.get(call.context_id)
    except RapidaError as error:
        _log.warn("call {id}: cannot read whether to transfer it: {error}", id=call.name, error=str(error))
        return "", True
    if context.next_dial:
        return context.next_dial, False
    # Unclaimed media, which came too late or met a full server, is no media.
    unclaimed = context.status in (ContextStatus.PENDING, ContextStatus.EXPIRED)
    return "", unclaimed or (failed and context.status is not ContextStatus.COMPLETED)


async def _inbound(call: StasisCall, next_dial: str, failed: bool) -> None:
    ari, channel_id = call.kit.ari, call.channel.id
    await _with_retries(
        call,
        lambda: all_of(
            ari.set_variable(channel_id, "RAPIDA_NEXT", next_dial),
            ari.set_variable(channel_id, "RAPIDA_ERROR", "1" if failed else ""),
        ),
    )
    await _with_retries(call, lambda: ari.continue_in_dialplan(channel_id))


async def _outbound(call: StasisCall, next_dial: str, failed: bool) -> None:
    ari, channel_id = call.kit.ari, call.channel.id
    local = _LOCAL.fullmatch(next_dial)
    if local is not None:
        await _with_retries(call, lambda: ari.continue_in_dialplan(channel_id, local[2], local[1]))
    elif not next_dial or not await _redirected(call, next_dial):
        await _with_retries(call, lambda: ari.hang_up(channel_id))


async def _redirected(call: StasisCall, next_dial: str) -> bool:
    """Redirect the far end; returns whether it left. Asterisk does not report the far end's response."""
    ari, why = call.kit.ari, "the far end does not know our trunks"
    try:
        if not _ROUTED.fullmatch(next_dial):
            # Asterisk waits for the far end's response on the channel itself, which a bridge would read, too.
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
        "call {id}: cannot transfer it to {dial} from Stasis ({why}); hanging up. A transfer to Local/EXTEN@CONTEXT"
        " always works",
        id=call.name, dial=next_dial, why=why,
    )  # fmt: skip
    return False


async def _with_retries(call: StasisCall, request: Callable[[], Awaitable[Any]]) -> None:
    """Send a request, again if ARI did not respond; each request here may be carried out twice."""
    for pause_s in PAUSES_S:
        try:
            await request()
        except AriError as error:
            if not error.retryable:
                raise
            await deferLater(call.kit.reactor, pause_s)
            if call.left:
                return
        else:
            return
    await request()
