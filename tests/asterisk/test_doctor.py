"""What the doctor makes of what an Asterisk tells of itself; see tests/live/test_doctor.py for a real one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from rapida_twisted.asterisk.ari.client import AriClient, AriInfo
from rapida_twisted.asterisk.asterisk_conf import audiosocket_modules, websocket_modules
from rapida_twisted.asterisk.doctor import ARI_MODULES, Finding, Level, clock_finding, examine_asterisk, module_findings
from tests.asterisk.scripted_ari import HANGS, PASSWORD, Answer, ScriptedAri

NOW = 1_795_000_000.0
ALL = dict.fromkeys((*audiosocket_modules(), *websocket_modules(), *ARI_MODULES), "Running")


class ClockTests(SynchronousTestCase):
    """Two clocks."""

    def found(self, ahead_s: float) -> Finding:
        """What is found when Asterisk's clock is ahead by so much."""
        return clock_finding(AriInfo(version="22", system_time=datetime.fromtimestamp(NOW + ahead_s, UTC)), NOW)

    def test_agree(self) -> None:
        """Up to two seconds either way nobody minds."""
        for ahead_s in (-2.0, -0.4, 0.0, 2.0):
            self.assertIs(self.found(ahead_s).level, Level.OK)

    def test_disagree(self) -> None:
        """More is bad, and which way is told."""
        for ahead_s, words in [(2.1, "2.1 s ahead of"), (-3600.0, "3600.0 s behind")]:
            finding = self.found(ahead_s)
            self.assertIs(finding.level, Level.BAD)
            self.assertIn(words, finding.what)
            self.assertIn("NTP", finding.advice)

    def test_not_told(self) -> None:
        """An Asterisk that does not tell its time is not judged."""
        self.assertIs(clock_finding(AriInfo(version="13"), NOW).level, Level.SKIPPED)


class ModuleTests(SynchronousTestCase):
    """What is loaded."""

    def levels(self, missing: list[str], *transports: str) -> list[str]:
        """The levels of what is found."""
        modules = {name: status for name, status in ALL.items() if name not in missing}
        return [finding.level.value for finding in module_findings("pbx", modules, transports)]

    def test_levels(self) -> None:
        """One transport is enough unless both are asked for; ARI's own modules are always needed."""
        self.assertEqual(self.levels([]), ["ok", "ok", "ok"])
        self.assertEqual(self.levels(["app_audiosocket"]), ["warn", "ok", "ok"])
        self.assertEqual(self.levels(["chan_websocket"]), ["ok", "warn", "ok"])
        self.assertEqual(self.levels(["func_curl"]), ["BAD", "BAD", "ok"])
        self.assertEqual(self.levels(["app_audiosocket"], "audiosocket"), ["BAD", "ok"])
        self.assertEqual(self.levels(["app_audiosocket"], "websocket"), ["ok", "ok"])
        self.assertEqual(self.levels(["app_stasis"]), ["ok", "ok", "BAD"])

    def test_loaded_but_not_running(self) -> None:
        """A module that was loaded and declined to run is missing, too, and the lines for it are told."""
        finding = module_findings("pbx", {**ALL, "res_audiosocket": "Not Running"}, ["audiosocket"])[0]
        self.assertIn("res_audiosocket not running", finding.what)
        self.assertIn('asterisk -rx "module load res_audiosocket.so"', finding.advice)
        self.assertIn("load = res_audiosocket.so", finding.advice)


class ExamineTests(TestCase):
    """An Asterisk as a whole, scripted."""

    async def examine(self, *scripts: tuple[str, Answer], **changes: str) -> tuple[list[Finding], Any]:
        """What is found of one that answers so to these paths."""
        ari = ScriptedAri()
        await ari.start()
        self.addCleanup(ari.stop)
        for path, answer in scripts:
            ari.script("GET", path, answer)
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        client = AriClient(
            ari.credential(**changes), treq_client=HTTPClient(Agent(reactor, pool=pool)), reactor=reactor, timeout_s=0.3
        )
        findings, values = await examine_asterisk(client, [], lambda: NOW)
        self.assertNotIn(PASSWORD, repr(findings))
        return findings, values

    async def test_unusable(self) -> None:
        """What keeps ARI from being asked is the one finding, and there are no values."""
        for scripts, changes, words in [
            ([], {"ari_password": "wrong"}, "refuses the user or the password"),
            ([("asterisk/info", HANGS)], {}, "no answer within 0.3 s"),
            ([("asterisk/info", Answer(200, b"<html>"))], {}, "no JSON"),
            ([("asterisk/modules", Answer(200, {"x": 1}))], {}, "not of the expected form"),
            ([("asterisk/info", Answer(404, {"message": "Not found"}))], {}, "Not found"),
        ]:  # fmt: skip
            findings, values = await self.examine(*scripts, **changes)
            self.assertEqual([finding.level for finding in findings], [Level.BAD], words)
            self.assertIn(words, findings[0].what)
            self.assertTrue(findings[0].advice)
            self.assertIs(values, None)

    async def test_old(self) -> None:
        """An Asterisk from before chan_websocket is a warning."""
        info = {"system": {"version": "18.9.0"}, "status": {"startup_time": "2025-01-31T11:00:00.000+0000"}}
        variable = ("asterisk/variable", Answer(404, {"message": "Not found"}))
        findings, values = await self.examine(("asterisk/info", Answer(200, info)), *[variable] * 6)
        self.assertIn("warn", [finding.level for finding in findings if "18.9.0" in finding.what])
        self.assertEqual(values, {})
