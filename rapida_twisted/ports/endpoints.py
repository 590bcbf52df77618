"""Endpoint strings: makes them from host and port, parses them, and turns their failures into one sentence."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from rapida_twisted.errors import StartError

__all__ = ["BACKLOG", "is_proxied", "outcome_of", "parse_endpoint", "tcp_endpoint"]

BACKLOG = 1024

_TAKEN = "stop the program that has this port, or choose another one (twistd rapida-media --help)"


def tcp_endpoint(host: str, port: int) -> str:
    """The Twisted endpoint string of a host and a port."""
    kind = "tcp6" if ":" in host else "tcp"
    return f"{kind}:{port}:interface={quoteStringArgument(host)}:backlog={BACKLOG}"


def is_proxied(description: str) -> bool:
    """True if the endpoint reads a PROXY header from each connection."""
    return description.startswith("haproxy:")


def parse_endpoint(name: str, description: str, reactor: Any) -> Any:
    """The endpoint of a string.

    :param name: of the port, for the error.
    :raises StartError: the string is invalid.
    """
    try:
        return serverFromString(reactor, description)
    except Exception as error:
        raise StartError(f"{name}: the endpoint {description!r} can't be used: {error}") from None


def outcome_of(started: Deferred[Any], what: str, advice: str = "") -> Any:
    """The result of a Deferred that has fired, or None if it has not.

    :param what: begins the error's sentence.
    :param advice: ends it.
    :raises StartError: it failed.
    """
    results: list[Any] = []
    started.addBoth(results.append)
    if not results:
        return None
    if isinstance(results[0], Failure):
        reason = results[0].getErrorMessage()
        advice = advice or _advice(results[0].value)
        raise StartError(f"{what}: {reason.rstrip('.')}; {advice}" if advice else f"{what}: {reason}")
    return results[0]


def _advice(error: Any) -> str:
    is_taken = isinstance(error, CannotListenError) and getattr(error.socketError, "errno", None) == errno.EADDRINUSE
    return _TAKEN if is_taken else ""
