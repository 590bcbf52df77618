"""``/metrics`` over HTTP: who may see it, and what there is without Prometheus' library."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.observe.interface import Metrics, MetricsPageMaker
from rapida_twisted.web.metrics import MetricsPage
from tests.web.in_memory import KEY, InMemoryHttp


class OneFigure(MetricsPageMaker):
    """A page of one line."""

    content_type = "text/plain; version=0.0.4"

    async def page(self) -> bytes:
        """The line."""
        return b"rapida_calls 1\n"


class MetricsPageTests(SynchronousTestCase):
    """The page."""

    def http(self, metrics: Metrics, public: bool = False) -> InMemoryHttp:
        """A site with the page."""
        http = InMemoryHttp()
        http.site.resource.putChild(b"metrics", MetricsPage(metrics, ApiKeys((KEY,)), public=public))
        return http

    def test_key(self) -> None:
        """A key is needed, and may be where Prometheus can put it."""
        http = self.http(OneFigure())
        refused = http.request("/metrics", key=None)
        self.assertEqual((refused.status, refused.body), (401, b""))
        self.assertEqual(http.request("/metrics", key="rpd-wrong").status, 401)
        response = http.request("/metrics", key=None, headers={"Authorization": f"Bearer {KEY}"})
        self.assertEqual((response.status, response.body), (200, b"rapida_calls 1\n"))
        self.assertEqual(response.headers["content-type"], "text/plain; version=0.0.4")

    def test_public(self) -> None:
        """Where the settings say so, no key is needed."""
        http = self.http(OneFigure(), public=True)
        self.assertEqual(http.request("/metrics", key=None).status, 200)
        self.assertEqual(http.request("/metrics", key=None, method="POST").status, 405)

    def test_without_the_library(self) -> None:
        """501, and a sentence that says what to install; strangers are not told."""
        http = self.http(Metrics())
        response = http.request("/metrics")
        self.assertEqual(response.status, 501)
        self.assertIn(b"its extra 'metrics'", response.body)
        self.assertIn("its extra 'metrics'", response.reason)
        self.assertEqual(http.request("/metrics", key=None).status, 401)
