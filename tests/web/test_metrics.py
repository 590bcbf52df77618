"""``/metrics`` over HTTP: who may see it, and what there is without Prometheus' library."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.observe.interface import Metrics, MetricsPageMaker
from rapida_twisted.web.metrics import MetricsPage
from tests.web.in_memory import KEY, Face


class OneFigure(MetricsPageMaker):
    """A page of one line."""

    content_type = "text/plain; version=0.0.4"

    async def page(self) -> bytes:
        """The line."""
        return b"rapida_calls 1\n"


class MetricsPageTests(SynchronousTestCase):
    """The page."""

    def face(self, metrics: Metrics, public: bool = False) -> Face:
        """A site with the page."""
        face = Face()
        face.site.resource.putChild(b"metrics", MetricsPage(metrics, ApiKeys((KEY,)), public=public))
        return face

    def test_key(self) -> None:
        """A key is needed, and may be where Prometheus can put it."""
        face = self.face(OneFigure())
        refused = face.ask("/metrics", key=None)
        self.assertEqual((refused.status, refused.body), (401, b""))
        self.assertEqual(face.ask("/metrics", key="rpd-wrong").status, 401)
        reply = face.ask("/metrics", key=None, headers={"Authorization": f"Bearer {KEY}"})
        self.assertEqual((reply.status, reply.body), (200, b"rapida_calls 1\n"))
        self.assertEqual(reply.headers["content-type"], "text/plain; version=0.0.4")

    def test_public(self) -> None:
        """Where the settings say so, no key is needed."""
        face = self.face(OneFigure(), public=True)
        self.assertEqual(face.ask("/metrics", key=None).status, 200)
        self.assertEqual(face.ask("/metrics", key=None, method="POST").status, 405)

    def test_without_the_library(self) -> None:
        """501, and a sentence that says what to install; strangers are not told."""
        face = self.face(Metrics())
        reply = face.ask("/metrics")
        self.assertEqual(reply.status, 501)
        self.assertIn(b"its extra 'metrics'", reply.body)
        self.assertIn("its extra 'metrics'", reply.reason)
        self.assertEqual(face.ask("/metrics", key=None).status, 401)
