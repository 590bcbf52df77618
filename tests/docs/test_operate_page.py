"""The page about operating, and the dashboard: they name the figures that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.settings import Settings, all_settings, known_names, read_env_file
from rapida_twisted.settings.groups import SAMPLE_KEYS
from tests.observe.test_prometheus import filled
from tests.observe.turns import TurningClock

DOCS = Path(__file__).parents[2] / "docs"
NAME = re.compile(r"\b(?:rapida|process)_[a-z0-9_]+")


class FiguresTests(SynchronousTestCase):
    """On metrics that were told one of everything."""

    def setUp(self) -> None:
        reactor = TurningClock()
        making = Deferred.fromCoroutine(filled(reactor).page())
        while reactor.getDelayedCalls():
            reactor.turn()
        page = self.successResultOf(making).decode()
        self.families = {}
        self.samples: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(page):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            self.families[name] = family
            for sample in family.samples:
                self.samples.setdefault(sample.name, set()).update(sample.labels)

    def test_page(self) -> None:
        """Every figure stands in the table with its labels, and no other does."""
        page = (DOCS / "operate.rst").read_text()
        rows = dict(re.findall(r"   \* - (``(?:rapida|process)_.*?)\n     -(.*?)\n", page))
        documented = {name: labels for names, labels in rows.items() for name in NAME.findall(names)}
        self.assertEqual(set(documented), set(self.families))
        for name, labels in documented.items():
            wanted = set().union(*(sample.labels for sample in self.families[name].samples)) - {"le"}
            self.assertEqual(set(filter(None, labels.strip().split(", "))), wanted, name)
        self.assertEqual(set(NAME.findall(page)) - set(self.families), {"rapida_twisted"})

    def test_dashboard(self) -> None:
        """Every figure is shown on it, with labels that it has; nothing else is asked for."""
        asked = set()
        for expression in expressions(dashboard()):
            for name in NAME.findall(expression):
                self.assertIn(name, self.samples, expression)
                asked.add(name)
            for name, labels in re.findall(r"\b((?:rapida|process)_[a-z0-9_]+)\{([^}]*)\}", expression):
                for label in re.findall(r"(\w+)(?:=|!=|=~|!~)\"", labels):
                    self.assertIn(label, self.samples[name] | {"instance", "job"}, expression)
        shown = {name.removesuffix("_bucket") for name in asked}
        self.assertEqual(set(self.families) - shown, set())

    def test_alerts(self) -> None:
        """Alerts ask for figures that there are, with labels and values that they have."""
        rules = (DOCS / "operate" / "alerts.yml").read_text()
        for expression in re.findall(r"expr: (.*)", rules):
            for name, labels in re.findall(r"\b((?:rapida|process)_[a-z0-9_]+)(?:\{([^}]*)\})?", expression):
                self.assertIn(name, self.samples, expression)
                for label, values in re.findall(r"(\w+)=~?\"([^\"]*)\"", labels):
                    self.assertIn(label, self.samples[name])
                    known = {sample.labels[label] for sample in self.families[name].samples if label in sample.labels}
                    self.assertLessEqual(set(values.split("|")), known | {"too_many_calls", "store_unavailable"})

    def test_variables(self) -> None:
        """What the dashboard's queries leave open is one of its variables, or Grafana's own."""
        board = dashboard()
        known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
        self.assertEqual(set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - known, {"__all"})

    def test_layout(self) -> None:
        """Panels have ids of their own, a title, a source, and do not lie upon one another."""
        panels = dashboard()["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            self.assertTrue(panel["title"])
            if panel["type"] != "row":
                self.assertEqual(panel["datasource"], {"type": "prometheus", "uid": "${datasource}"})
                letters = [target["refId"] for target in panel["targets"]]
                self.assertEqual(len(set(letters)), len(letters))
        for one, other in combinations((panel["gridPos"] for panel in panels), 2):
            apart = (
                one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
                or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            )  # fmt: skip
            self.assertTrue(apart, (one, other))


def dashboard() -> dict[str, Any]:
    """The file, as Grafana reads it."""
    board: dict[str, Any] = json.loads((DOCS / "grafana-dashboard.json").read_text())
    return board


def expressions(board: dict[str, Any]) -> Iterator[str]:
    """All that is asked of Prometheus."""
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (variable["definition"] for variable in board["templating"]["list"] if "definition" in variable)


class UnitTests(SynchronousTestCase):
    """The unit for systemd, and its settings."""

    def setUp(self) -> None:
        self.unit = (DOCS / "operate" / "rapida-media.service").read_text()
        words = read_env_file(str(DOCS / "operate" / "rapida-media.env"))
        self.assertIn(words["RAPIDA_API_KEY"], SAMPLE_KEYS)
        words["RAPIDA_API_KEY"] = "rpd-of-the-operator"
        (given,) = re.findall(r"^Environment=(.*)", self.unit, re.MULTILINE)
        words |= dict(word.split("=", 1) for word in given.split())
        known = {setting.env for setting in all_settings()} | {"PYTHONUNBUFFERED"}
        self.assertLessEqual(set(words), known)
        self.settings = Settings.from_mapping(known_names(words))

    def test_settings(self) -> None:
        """They are ones that the server knows and takes, and its calls have their time to end."""
        self.assertEqual(str(self.settings.process.state_dir), "/var/lib/rapida-media")
        (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)", self.unit, re.MULTILINE)
        self.assertGreater(int(stop_s), self.settings.process.drain_s + 20)

    def test_limits_of_the_process(self) -> None:
        """No memory dump holds keys or voices, and a leak ends at a limit."""
        for line in ("LimitCORE=0", "ProcSubset=pid"):
            self.assertIn(f"\n{line}\n", self.unit)
        self.assertRegex(self.unit, r"\nMemoryMax=\S+\n")

    def test_command(self) -> None:
        """It is one that twistd takes."""
        (command,) = re.findall(r"^ExecStart=(.*)", self.unit, re.MULTILINE)
        program, *words = command.split()
        self.assertEqual(program, "/opt/rapida-media/bin/twistd")
        options = ServerOptions()
        # The tests' own reactor is installed already.
        self.assertIn("--reactor=asyncio", words)
        options.parseOptions([word for word in words if word not in ("rapida-media", "--reactor=asyncio")])
        self.assertEqual((words[-1], options["nodaemon"]), ("rapida-media", 1))
