"""``/v1/clock``: the media clock's punctuality, for operators and benchmarks."""

from __future__ import annotations

from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.media.clock import MediaClock
from rapida_twisted.web.resource import KeyedResource
from rapida_twisted.web.responses import Response, json_response

__all__ = ["ClockPage"]


class ClockPage(KeyedResource):
    """How late frames left, since the start or the last DELETE.

    :param clock: the clock of all calls.
    """

    methods = (b"GET", b"HEAD", b"DELETE")
    of_all_calls = True

    def __init__(self, clock: MediaClock, keys: ApiKeys) -> None:
        super().__init__(keys)
        self._clock = clock

    async def respond(self, request: Request) -> Response:
        """The figures in JSON; DELETE returns and resets them."""
        clock, lateness = self._clock, self._clock.lateness
        figures = {
            "calls": len(clock),
            "frames": sum(lateness.counts),
            "forgiven": clock.forgiven,
            "polling": clock.polling,
            "polled": clock.polled,
            "calls_of_slots": clock.calls_of_slots,
            "moves": clock.moves,
            "late_ticks": clock.late_ticks,
            "busy_share": round(clock.share, 4),
            "late_ms": {
                "p50": round(lateness.percentile_ms(0.50), 2),
                "p99": round(lateness.percentile_ms(0.99), 2),
                "p999": round(lateness.percentile_ms(0.999), 2),
                "max": round(lateness.max_s * 1000, 2),
            },
        }
        if request.method == b"DELETE":
            clock.reset_figures()
        return json_response(figures)
