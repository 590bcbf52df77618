"""Parses ``redis://``, ``rediss://`` and ``redis+sentinel://`` URLs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import starmap
from urllib.parse import parse_qsl, unquote

from rapida_twisted.errors import SettingsError
from rapida_twisted.net.addresses import host_and_port, parse_host_port

__all__ = ["FORMS", "SCHEMES", "RedisAddress"]

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
FORMS = (
    "redis://[user:password@]host[:port][/database] (rediss:// with TLS), or"
    " redis+sentinel://[user:password@]host[:port],host[:port],.../service[/database]"
)
DEFAULT_PREFIX = "rapida:"
DEFAULT_TIMEOUT_S = 2.0
_REDIS_PORT = 6379
_SENTINEL_PORT = 26379


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """A Redis, or a service whose master sentinels know. Its repr has no password."""

    hosts: tuple[tuple[str, int], ...]
    """The server; with a :attr:`service`, the sentinels."""
    service: str = ""
    """Its name at the sentinels; empty without sentinels."""
    tls: bool = False
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    database: int = 0
    prefix: str = DEFAULT_PREFIX
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Time limit of each command (s)."""

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """Read a URL. Its query may have ``prefix`` and ``timeout`` (s).

        :raises SettingsError: it can't be used; the text repeats nothing of it, since a password may be anywhere.
        """
        scheme, _, rest = url.partition("://")
        rest, _, query = rest.partition("?")
        authority, _, path = rest.partition("/")
        entry, _, hosts = authority.rpartition("@")
        username, colon, password = entry.partition(":")
        sentinel = scheme.endswith("+sentinel")
        service, _, database = path.partition("/") if sentinel else ("", "", path)
        prefix, timeout_s = _query(query)
        address = cls(
            hosts=tuple(_host(host, _SENTINEL_PORT if sentinel else _REDIS_PORT) for host in hosts.split(",")),
            service=unquote(service),
            tls=scheme.startswith("rediss"),
            username=unquote(username),
            password=unquote(password),
            database=_database(database),
            prefix=prefix,
            timeout_s=timeout_s,
        )
        if entry and not (colon and password):
            raise _unusable("what stands before the @ is user:password, or :password")
        if sentinel != bool(service) or (not sentinel and len(address.hosts) > 1):
            raise _unusable(f"it is {FORMS}")
        return address

    @property
    def where(self) -> str:
        """The address for people."""
        hosts = ",".join(starmap(host_and_port, self.hosts))
        return f"{self.service!r} of the sentinels {hosts}" if self.service else hosts


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        return parse_host_port(text, default_port)
    except ValueError:
        raise _unusable("no host[:port] stands where one should (has the password an unquoted / or @ or ?)") from None


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 6):
        raise _unusable("a database is a number")
    return int(text or 0)


def _query(text: str) -> tuple[str, float]:
    words = dict(parse_qsl(text, keep_blank_values=True))
    prefix, timeout = words.pop("prefix", DEFAULT_PREFIX), words.pop("timeout", str(DEFAULT_TIMEOUT_S))
    if words:
        raise _unusable("what follows the ? is prefix=... or timeout=... or both, with & between them")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,40}", prefix):
        raise _unusable("a prefix is up to 40 letters, digits and '_.:-'")
    if not re.fullmatch(r"\d{1,2}(\.\d{1,3})?", timeout) or not 0.1 <= float(timeout) <= 30:
        raise _unusable("a timeout is a number of seconds from 0.1 to 30")
    return prefix, float(timeout)


def _unusable(why: str) -> SettingsError:
    return SettingsError(f"STORE__URL can't be used: {why}")
