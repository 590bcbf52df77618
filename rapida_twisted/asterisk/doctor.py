"""What is wrong with an installation: ARI, the modules, the dialplan's values, the clocks.

Nothing is changed by looking, and no call is placed. The dialplan's ``[globals]`` are read through ARI, so that what is
checked is what Asterisk runs, not what some file says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from rapida_twisted.asterisk.ari.client import AriClient
from rapida_twisted.asterisk.ari.errors import AriError, AriUnauthorized, AriUnreachable
from rapida_twisted.asterisk.ari.replies import AriInfo
from rapida_twisted.asterisk.asterisk_conf import audiosocket_modules, websocket_modules

__all__ = ["GLOBALS", "Finding", "Level", "clock_finding", "examine_asterisk", "module_findings"]

CLOCK_TOLERANCE_S = 2.0
OLDEST_WITH_WEBSOCKET = 20
GLOBALS = ("RAPIDA_URL", "RAPIDA_HOST", "RAPIDA_AS_HOST", "RAPIDA_PORT", "RAPIDA_API_KEY", "ASSISTANT_ID")
"""Of the dialplan that we print, and of that on Rapida's page."""
ARI_MODULES = ("res_ari_channels", "res_ari_applications", "res_ari_asterisk", "res_ari_events", "app_stasis")


class Level(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    SKIPPED = "skip"
    WARNING = "warn"
    BAD = "BAD"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""


async def examine_asterisk(
    ari: AriClient, transports: Iterable[str], now: Any
) -> tuple[list[Finding], dict[str, str] | None]:
    """Look at one Asterisk through its ARI; gives what was found, and the dialplan's globals if it could be asked.

    :param transports: those that must work, of ``audiosocket`` and ``websocket``; none: one of them is enough.
    :param now: gives UNIX seconds.
    """
    name, url = ari.credential.name, ari.credential.ari_url
    try:
        asked_at = now()
        info = await ari.info()
        clock = clock_finding(info, (asked_at + now()) / 2)
        modules = await ari.modules()
        values = {variable: await ari.global_variable(variable) for variable in GLOBALS}
    except AriError as error:
        return [_unusable(error, name, url)], None
    findings = [Finding(Level.OK, f"{name}: ARI at {url} is reached, and the password is right"), _version(name, info)]
    findings += module_findings(name, modules, transports)
    return [*findings, clock], {variable: value for variable, value in values.items() if value}


def _unusable(error: AriError, name: str, url: str) -> Finding:
    match error:
        case AriUnauthorized():
            what = f"{name}: ARI at {url} refuses the user or the password"
            advice = f"set them as ari.conf has them (rapida-media-ctl vault set {name}), or mend ari.conf"
            return Finding(Level.BAD, what, advice)
        case AriUnreachable():
            what = f"{name}: ARI at {url} is not reached: {error.message}"
            advice = (
                "is Asterisk up, is http.conf enabled on this address and port, and ari.conf enabled? The lines:"
                f" rapida-media-ctl dialplan --credential {name}"
            )
            return Finding(Level.BAD, what, advice)
    what = f"{name}: ARI at {url} does not do what it should: {error}"
    return Finding(Level.BAD, what, "is this the address of Asterisk's HTTP server?")


def _version(name: str, info: AriInfo) -> Finding:
    what = f"{name}: Asterisk {info.version}"
    major = info.version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST_WITH_WEBSOCKET:
        advice = f"chan_websocket came with Asterisk {OLDEST_WITH_WEBSOCKET}: use AudioSocket, or a newer one"
        return Finding(Level.WARNING, what, advice)
    return Finding(Level.OK, what)


def clock_finding(info: AriInfo, at: float) -> Finding:
    """Whether Asterisk's clock and ours agree.

    :param at: when Asterisk told its time (UNIX s, ours).
    """
    if info.system_time is None:
        return Finding(Level.SKIPPED, "the clocks: this Asterisk does not tell its time")
    ahead_s = (info.system_time - datetime.fromtimestamp(at, UTC)).total_seconds()
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return Finding(Level.OK, f"the clocks agree, but for {abs(ahead_s):.1f} s")
    side = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        Level.BAD,
        f"Asterisk's clock is {abs(ahead_s):.1f} s {side} this machine's",
        "set both by NTP (systemd-timesyncd, chrony): records, logs and signatures go by them",
    )


def module_findings(name: str, modules: Mapping[str, str], transports: Iterable[str]) -> list[Finding]:
    """Whether the modules are there and running.

    :param modules: each module's status by its name.
    :param transports: see :func:`examine_asterisk`.
    """
    wanted = tuple(transports)
    needs = {"audiosocket": audiosocket_modules(), "websocket": websocket_modules()}
    missing = {transport: _missing(needed, modules) for transport, needed in needs.items()}
    enough = not wanted and not all(missing.values())
    findings = []
    for transport, lacking in missing.items():
        if wanted and transport not in wanted:
            continue
        level = Level.WARNING if enough else Level.BAD
        findings.append(_modules_finding(f"{name}: modules for {transport}", lacking, level))
    findings.append(_modules_finding(f"{name}: modules for ARI", _missing(ARI_MODULES, modules), Level.BAD))
    return findings


def _missing(needed: Iterable[str], modules: Mapping[str, str]) -> list[str]:
    return [module for module in needed if modules.get(module) != "Running"]


def _modules_finding(what: str, missing: list[str], level: Level) -> Finding:
    if not missing:
        return Finding(Level.OK, f"{what} are running")
    load = "; ".join(f'asterisk -rx "module load {module}.so"' for module in missing)
    lines = ", ".join(f"load = {module}.so" for module in missing)
    return Finding(level, f"{what}: {', '.join(missing)} not running", f"{load}; and in modules.conf: {lines}")
