"""The first look at a Redis, without a reactor: a server that can't reach its store refuses to start, with a sentence.

It blocks, for five seconds at most, as opening a file may.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hiredis

from rapida_twisted.errors import StoreUnavailable
from rapida_twisted.store.redis_address import RedisAddress

__all__ = ["probe"]

PROBE_S = 5.0


def probe(address: RedisAddress, ca_file: str = "") -> None:
    """Enter the Redis, and see that it can be written to.

    :param ca_file: the authorities to trust in the place of the public ones.
    :raises StoreUnavailable: that can't be; the text is one sentence, without the password.
    """
    deadline_s = time.monotonic() + PROBE_S
    problems = []
    for host, port in address.hosts:
        try:
            if address.service:
                host, port = _master(address, host, port, ca_file, deadline_s)
            with _connected(address, host, port, ca_file, deadline_s) as connection:
                _enter(connection, address)
                role = connection.ask("ROLE")
                if role[0] != b"master":
                    raise _Refused(f"it is a {role[0].decode()}, which can't be written to")
            return
        except _Refused as error:
            problems.append(f"{host}:{port}: {error}")
        except (OSError, ssl.SSLError, hiredis.HiredisError) as error:
            problems.append(f"{host}:{port}: {_words(error, address.tls)}")
    raise StoreUnavailable(f"the call store does not answer at {'; '.join(problems)}")


class _Refused(Exception):
    """It answered, and said no."""


class _Connection:
    """Asks one thing after the other."""

    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self._socket = sock
        self._deadline_s = deadline_s
        self._reader = hiredis.Reader()

    def ask(self, *words: str) -> Any:
        """Send a command; gives the answer."""
        self._socket.settimeout(max(0.01, self._deadline_s - time.monotonic()))
        self._socket.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]
        while (answer := self._reader.gets()) is False:
            self._socket.settimeout(max(0.01, self._deadline_s - time.monotonic()))
            data = self._socket.recv(65536)
            if not data:
                raise _Refused("it closed the connection")
            self._reader.feed(data)
        if isinstance(answer, hiredis.ReplyError):
            raise _Refused(str(answer))
        return answer


@contextmanager
def _connected(address: RedisAddress, host: str, port: int, ca_file: str, deadline_s: float) -> Iterator[_Connection]:
    left_s = max(0.01, (deadline_s - time.monotonic()) / (1 if len(address.hosts) == 1 else 2))
    with socket.create_connection((host, port), left_s) as plain:
        if not address.tls:
            yield _Connection(plain, deadline_s)
            return
        context = ssl.create_default_context(cafile=ca_file or None)
        with context.wrap_socket(plain, server_hostname=host) as secured:
            yield _Connection(secured, deadline_s)


def _enter(connection: _Connection, address: RedisAddress) -> None:
    if address.password:
        connection.ask("AUTH", *([address.username] if address.username else []), address.password)
    if address.database:
        connection.ask("SELECT", str(address.database))
    connection.ask("PING")


def _master(address: RedisAddress, host: str, port: int, ca_file: str, deadline_s: float) -> tuple[str, int]:
    with _connected(address, host, port, ca_file, deadline_s) as connection:
        found = connection.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
    if not found:
        raise _Refused(f"this sentinel does not know {address.service!r}")
    return found[0].decode(), int(found[1])


def _words(error: Exception, tls: bool) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PROBE_S:g} s" + (" (does it speak TLS?)" if tls else "")
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} (TLS__CA_FILE names the file of a private CA)"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return getattr(error, "strerror", None) or str(error)
