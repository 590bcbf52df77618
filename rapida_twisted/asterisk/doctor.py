"""Checks an Asterisk's installation: ARI, the modules, the dialplan's globals, the clocks.

A check changes nothing and places no call. It reads the dialplan's ``[globals]`` through ARI, so it checks what
Asterisk runs, not a file.
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
"""The globals of our printed dialplan, and of the one on Rapida's page."""
ARI_MODULES = ("res_ari_channels", "res_ari_applications", "res_ari_asterisk", "res_ari_events", "app_stasis")


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    SKIPPED = "skip"
    WARNING = "warn"
    BAD = "BAD"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    level: Level
    what: str
    advice: str = ""
    """How to repair it; empty if nothing needs a repair."""


async def examine_asterisk(
    ari: AriClient, transports: Iterable[str], now: Any
) -> tuple[list[Finding], dict[str, str] | None]:
    """Check one Asterisk through its ARI; returns the findings, and the dialplan's globals unless ARI failed.

    :param transports: the transports that must work, of ``audiosocket`` and ``websocket``; none: either is enough.
    :param now: returns UNIX seconds.
    """
    name, url = ari.credential.name, ari.credential.ari_url
    try:
        requested_at = now()
        info = await ari.info()
        clock = clock_finding(info, (requested_at + now()) / 2)
        modules = await ari.modules()
        globals_ = {variable: await ari.global_variable(variable) for variable in GLOBALS}
    except AriError as error:
        return [_unusable(error, name, url)], None
    findings = [
        Finding(Level.OK, f"{name}: ARI at {url} is reachable, and the password is right"),
        _version(name, info),
    ]
    findings += module_findings(name, modules, transports)
    return [*findings, clock], {variable: value for variable, value in globals_.items() if value}


def _unusable(error: AriError, name: str, url: str) -> Finding:
    match error:
        case AriUnauthorized():
            what = f"{name}: ARI at {url} refuses the user or the password"
            advice = f"set them as ari.conf has them (rapida-media-ctl vault set {name}), or correct ari.conf"
            return Finding(Level.BAD, what, advice)
        case AriUnreachable():
            what = f"{name}: ARI at {url} is not reachable: {error.message}"
            advice = (
                "is Asterisk up, is http.conf enabled on this address and port, and ari.conf enabled? The lines:"
                f" rapida-media-ctl dialplan --credential {name}"
            )
            return Finding(Level.BAD, what, advice)
    what = f"{name}: ARI at {url} failed: {error}"
    return Finding(Level.BAD, what, "is this the address of Asterisk's HTTP server?")


def _version(name: str, info: AriInfo) -> Finding:
    what = f"{name}: Asterisk {info.version}"
    major = info.version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST_WITH_WEBSOCKET:
        advice = f"chan_websocket came with Asterisk {OLDEST_WITH_WEBSOCKET}: use AudioSocket, or a newer Asterisk"
        return Finding(Level.WARNING, what, advice)
    return Finding(Level.OK, what)


def clock_finding(info: AriInfo, at: float) -> Finding:
    """Compare Asterisk's clock with this machine's.

    :param at: when Asterisk reported its time (UNIX s, by this machine's clock).
    """
    if info.system_time is None:
        return Finding(Level.SKIPPED, "the clocks: this Asterisk does not report its time")
    ahead_s = (info.system_time - datetime.fromtimestamp(at, UTC)).total_seconds()
    if abs(ahead_s) <= CLOCK_TOLERANCE_S:
        return Finding(Level.OK, f"the clocks agree to {abs(ahead_s):.1f} s")
    side = "ahead of" if ahead_s > 0 else "behind"
    return Finding(
        Level.BAD,
        f"Asterisk's clock is {abs(ahead_s):.1f} s {side} this machine's",
        "set both by NTP (systemd-timesyncd, chrony): records, logs and signatures need them",
    )


def module_findings(name: str, modules: Mapping[str, str], transports: Iterable[str]) -> list[Finding]:
    """Check whether the modules are running.

    :param modules: each module's status by its name.
    :param transports: see :func:`examine_asterisk`.
    """
    required = tuple(transports)
    needed = {"audiosocket": audiosocket_modules(), "websocket": websocket_modules()}
    missing = {transport: _missing(names, modules) for transport, names in needed.items()}
    level = Level.WARNING if not required and not all(missing.values()) else Level.BAD
    findings = [
        _modules_finding(f"{name}: modules for {transport}", names, level)
        for transport, names in missing.items()
        if not required or transport in required
    ]
    return [*findings, _modules_finding(f"{name}: modules for ARI", _missing(ARI_MODULES, modules), Level.BAD)]


def _missing(needed: Iterable[str], modules: Mapping[str, str]) -> list[str]:
    return [module for module in needed if modules.get(module) != "Running"]


def _modules_finding(what: str, missing: list[str], level: Level) -> Finding:
    if not missing:
        return Finding(Level.OK, f"{what} are running")
    load = "; ".join(f'asterisk -rx "module load {module}.so"' for module in missing)
    lines = ", ".join(f"load = {module}.so" for module in missing)
    return Finding(level, f"{what}: {', '.join(missing)} not running", f"{load}; and in modules.conf: {lines}")
