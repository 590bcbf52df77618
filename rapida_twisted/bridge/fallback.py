"""The fallback of a bridged call whose server failed: another assistant, a transfer, or the dialplan."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.logger import Logger

from rapida_twisted.context import CallContext
from rapida_twisted.errors import CallEnded, StoreUnavailable, TransferRefused, UpstreamFailed
from rapida_twisted.interfaces import typed
from rapida_twisted.interfaces.typed import CallPlumbing

__all__ = ["Fallback"]


@attrs.define(eq=False, slots=False, repr=False)
class Fallback:
    """Continues such calls. Without ``make`` and ``dial_string`` the media ends, and the dialplan continues.

    :param name: ``UPSTREAM__FALLBACK``, for the log.
    :param make: makes the assistant that takes over.
    :param dial_string: transfers the caller to this destination.
    """

    _log = Logger()

    _name: str = ""
    _make: Callable[[CallContext], typed.Assistant] | None = None
    _dial_string: str = ""

    def __bool__(self) -> bool:
        """True if a fallback is configured."""
        return bool(self._make or self._dial_string)

    async def take_over(self, call: CallPlumbing, failure: UpstreamFailed) -> None:
        """Continue the call.

        :raises UpstreamFailed: no fallback is configured, or its transfer failed.
        """
        if not self:
            raise failure
        self._log.warn(
            "call {id}: {failure}; {name} takes over",
            id=call.context.context_id, failure=str(failure), name=self._name,
        )  # fmt: skip
        call.note(str(failure))
        if self._make is not None:
            call.hand_over(self._make(call.context))
            return
        try:
            await call.transfer(self._dial_string)
        except CallEnded:
            pass
        except (TransferRefused, StoreUnavailable) as error:
            raise UpstreamFailed(failure.word, f"its fallback {self._name} failed, too: {error}") from None
