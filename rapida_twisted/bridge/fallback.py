"""What becomes of a call whose other server failed: another assistant, another extension, or the dialplan."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from rapida_twisted.context import CallContext
from rapida_twisted.errors import CallEnded, StoreUnavailable, TransferRefused, UpstreamFailed
from rapida_twisted.interfaces import IAssistant, ICallPlumbing

__all__ = ["Fallback"]


class Fallback:
    """How such calls go on. Without any of these the media ends, and with it the call is the dialplan's again.

    :param name: as the settings have it, for the log.
    :param make: makes the assistant that takes over.
    :param dial_string: where the dialplan is to send the caller.
    """

    _log = Logger()

    def __init__(
        self, name: str = "", make: Callable[[CallContext], IAssistant] | None = None, dial_string: str = ""
    ) -> None:
        self._name = name
        self._make = make
        self._dial_string = dial_string

    def __bool__(self) -> bool:
        """Whether somebody is there to take over."""
        return bool(self._make or self._dial_string)

    async def take_over(self, call: ICallPlumbing, failure: UpstreamFailed) -> None:
        """Go on with a call.

        :raises UpstreamFailed: nobody is there, or nobody can be reached.
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
