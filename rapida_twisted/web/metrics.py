"""``/metrics``: all metrics in Prometheus' format."""

from __future__ import annotations

from twisted.web.server import Request

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.observe.interface import Metrics, MetricsPageMaker
from rapida_twisted.web.resource import AsyncResource, KeyedResource
from rapida_twisted.web.responses import ERROR_HEADER, Response

__all__ = ["MetricsPage"]

MISSING = "there are no metrics: install prometheus-client, or this package with its extra 'metrics'"


class MetricsPage(KeyedResource):
    """The page that Prometheus reads.

    :param public: whether the page needs no key.
    """

    of_all_calls = True

    def __init__(self, metrics: Metrics, keys: ApiKeys, *, public: bool = False) -> None:
        super().__init__(keys)
        self._metrics = metrics
        self._public = public

    def check(self, request: Request) -> None:
        """Check the key, unless the page is public, and the method.

        :raises Refusal: 401, 403 or 405.
        """
        if self._public:
            AsyncResource.check(self, request)
        else:
            super().check(request)

    async def respond(self, request: Request) -> Response:
        """The page; 501 without Prometheus' library."""
        if not isinstance(self._metrics, MetricsPageMaker):
            return Response(501, MISSING.encode(), "text/plain; charset=utf-8", {ERROR_HEADER: MISSING})
        return Response(200, await self._metrics.page(), self._metrics.content_type)
