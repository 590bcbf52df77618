"""twistd writes its log where its options say (stdout, ``--logfile``, ``--syslog``), in our format.

twistd makes its observer itself, unless ``--logger`` names a factory; :func:`take_over` sets that option.
"""

from __future__ import annotations

import signal
import sys
import syslog
from collections.abc import Callable
from typing import Any

from twisted.logger import FileLogObserver, ILogObserver, LegacyLogObserverWrapper, LogEvent, LogLevel
from twisted.python.logfile import LogFile
from twisted.python.reflect import namedAny
from zope.interface import implementer

from rapida_twisted.observe.logs import Formatter, MaskingObserver, formatter_of

__all__ = ["make_observer", "take_over"]

_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}

_taken: list[tuple[Any, str, str]] = []
"""twistd's options, the log format, and the factory that the command line named."""


def take_over(options: Any, log_format: str) -> None:
    """Have twistd use our observer. Called while it reads its command line.

    :param options: twistd's own.
    :param log_format: ``text`` or ``json``.
    """
    _taken[:] = [(options, log_format, options.get("logger") or "")]
    options["logger"] = f"{__name__}.{make_observer.__name__}"


def make_observer() -> Any:
    """Called by twistd when logging starts: an observer for the place that its options name."""
    ((options, log_format, theirs),) = _taken
    if theirs:
        observer = namedAny(theirs)()
        return MaskingObserver(observer if ILogObserver.providedBy(observer) else LegacyLogObserverWrapper(observer))
    format_event = formatter_of(log_format)
    if options.get("syslog"):
        return SyslogObserver(options.get("prefix") or "twisted", format_event)
    return FileLogObserver(_file(options), format_event)


def _file(options: Any) -> Any:
    """The file that twistd itself would log to."""
    name = options.get("logfile")
    in_foreground = options.get("nodaemon") or options.get("debug")
    if name == "-" and not in_foreground:
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (in_foreground and not name):
        return sys.stdout
    file = LogFile.fromFullPath(name or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: _rotate(file))
    return file


def _rotate(file: LogFile) -> None:
    from twisted.internet import reactor

    rotate: Callable[[], None] = file.rotate
    reactor.callFromThread(rotate)  # type: ignore[attr-defined]


@implementer(ILogObserver)
class SyslogObserver:
    """Writes to syslog, which adds the time, one line at a time."""

    def __init__(self, prefix: str, format_event: Formatter) -> None:
        syslog.openlog(prefix, 0, syslog.LOG_USER)
        self._format_event = format_event

    def __call__(self, event: LogEvent) -> None:
        line = self._format_event(event)
        if line is None:
            return
        priority = _PRIORITIES.get(event.get("log_level", LogLevel.info), syslog.LOG_INFO)
        for part in line.splitlines():
            syslog.syslog(priority, part)
