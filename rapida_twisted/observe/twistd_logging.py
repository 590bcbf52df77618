"""twistd writes its log where its options say (stdout, ``--logfile``, ``--syslog``), in our format.

twistd makes its observer itself, unless ``--logger`` names a factory; :func:`take_over` sets that option. While the
reactor runs, a thread writes: see :mod:`~rapida_twisted.observe.log_writer`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import syslog
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import ILogObserver, LegacyLogObserverWrapper, LogEvent, LogLevel
from twisted.python.logfile import LogFile
from twisted.python.reflect import namedAny
from zope.interface import implementer

from rapida_twisted.observe.log_writer import LogWriter
from rapida_twisted.observe.logs import Formatter, MaskingObserver, formatter_of

__all__ = ["dropped_lines", "make_observer", "take_over"]

_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}

_taken: list[tuple[Any, str, str]] = []
"""twistd's options, the log format, and the factory that the command line named."""
_writers: list[LogWriter] = []


def dropped_lines() -> int:
    """How many lines of this process's log were dropped, for their reader was too slow."""
    return sum(writer.dropped for writer in _writers)


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
    return _FileObserver(_file(options), format_event)


def _in_thread(write: Callable[[Sequence[str]], object], format_event: Formatter, prefix: str = "") -> LogWriter:
    """A writer that has a thread while the reactor runs."""
    from twisted.internet import reactor

    def dropped_line(count: int) -> str:
        text = "{count} lines of this log were dropped: what reads it is too slow"
        event = {
            "log_format": text, "count": count, "log_level": LogLevel.warn, "log_time": time.time(),
            "log_namespace": __name__,
        }  # fmt: skip
        return prefix + (format_event(event) or "")

    writer = LogWriter(write, dropped_line)
    _writers[:] = [writer]
    reactor.callWhenRunning(writer.start)
    reactor.addSystemEventTrigger("after", "shutdown", writer.stop)
    return writer


def _file(options: Any) -> Any:
    """The file that twistd itself would log to."""
    name = options.get("logfile")
    in_foreground = options.get("nodaemon") or options.get("debug")
    if name == "-" and not in_foreground:
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (in_foreground and not name):
        return sys.stdout
    return LogFile.fromFullPath(name or "twistd.log")


@implementer(ILogObserver)
class _FileObserver:
    """Writes lines to stdout or a file; SIGUSR1 begins a new file."""

    def __init__(self, file: Any, format_event: Formatter) -> None:
        self._format_event = format_event
        self._file = file
        self._writer = _in_thread(self._write, format_event)
        if isinstance(file, LogFile) and not signal.getsignal(signal.SIGUSR1):
            signal.signal(signal.SIGUSR1, lambda *_: self._rotate())

    def __call__(self, event: LogEvent) -> None:
        line = self._format_event(event)
        if line:
            self._writer.add(line)

    def _write(self, lines: Sequence[str]) -> None:
        text = "".join(lines)
        if isinstance(self._file, LogFile):
            self._file.write(text)
        else:
            _write_all(self._file.fileno(), text.encode("utf-8", "backslashreplace"))

    def _rotate(self) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(self._writer.add, self._file.rotate)  # type: ignore[attr-defined]


def _write_all(descriptor: int, data: bytes) -> None:
    """Not by the file object: a thread that is stuck there makes the interpreter's end fatal."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select((), (descriptor,), (), 1.0)


@implementer(ILogObserver)
class SyslogObserver:
    """Writes to syslog, which adds the time, one line at a time."""

    def __init__(self, prefix: str, format_event: Formatter) -> None:
        syslog.openlog(prefix, 0, syslog.LOG_USER)
        self._format_event = format_event
        self._writer = _in_thread(self._write, format_event, f"{syslog.LOG_WARNING} ")

    def __call__(self, event: LogEvent) -> None:
        line = self._format_event(event)
        if line is None:
            return
        priority = _PRIORITIES.get(event.get("log_level", LogLevel.info), syslog.LOG_INFO)
        self._writer.add(f"{priority} {line}")

    def _write(self, lines: Sequence[str]) -> None:
        for line in lines:
            priority, _, text = line.partition(" ")
            for part in text.splitlines():
                syslog.syslog(int(priority), part)
