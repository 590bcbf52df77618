"""``twistd rapida-media``: makes Settings of the command line, and the service of the Settings."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence

from twisted.application.service import IService, MultiService, Service
from twisted.logger import Logger
from twisted.python import usage

from rapida_twisted import __version__
from rapida_twisted.assistants.registry import known_factories
from rapida_twisted.credentials.masking import masked
from rapida_twisted.errors import SettingsError, StartError
from rapida_twisted.observe.twistd_logging import take_over
from rapida_twisted.server.build import ASYNCIO, RapidaMedia, make_supervisor
from rapida_twisted.server.monotonic import use_monotonic_time
from rapida_twisted.server.systemd import SystemdNotifier
from rapida_twisted.server.workers.supervisor import WorkerSupervisor
from rapida_twisted.settings import Setting, Settings, all_settings, known_names, read_env_file, unknown_names

__all__ = ["Options", "makeService"]


def _help(setting: Setting) -> str:
    shown = f" [default: {setting.default}]" if setting.default else ""
    return f"{setting.help}{shown} (${setting.env})"


class Options(usage.Options):
    """The command line of ``twistd rapida-media``."""

    synopsis = "[options]"
    longdesc = (
        "Takes phone calls from an Asterisk PBX over AudioSocket and gives each to an assistant. Every option has a"
        " name in the environment too; options win over the environment, that over the env file, that over defaults."
    )
    optParameters = [
        ["env-file", None, None, "file of NAME=value lines to read settings from"],
        *(
            [setting.option, None, None, _help(setting)]
            for setting in all_settings()
            if not setting.secret and setting.env != "ASSISTANT"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._assistants: list[str] = []

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802
        """Parse the command line; a wrong one ends the process with one sentence and exit code 2. Twisted would print
        the whole help above it."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            print(f"rapida-media: {error} (--help lists the options)", file=sys.stderr)  # noqa: T201
            raise SystemExit(2) from None

    def opt_assistant(self, rule: str) -> None:
        """which assistant answers which id: ID=NAME[:ARGUMENT] or ID=module:Class; repeatable [default: *=greeter]
        ($ASSISTANT)"""
        self._assistants.append(rule)

    def opt_version(self) -> None:
        """print the version, and exit"""
        print(f"rapida-media {__version__}")  # noqa: T201
        sys.exit(0)

    def opt_help_assistants(self) -> None:
        """list the assistants that --assistant knows by name, and exit"""
        for factory in known_factories().values():
            print("  " + factory.usage)  # noqa: T201
        sys.exit(0)

    def postOptions(self) -> None:
        """Make the settings."""
        values = {
            setting.env: self[setting.option]
            for setting in all_settings()
            if setting.option in self and self[setting.option] is not None
        }
        if "@" in values.get("STORE__URL", ""):
            raise _refused("store-url with a password", "STORE__URL")
        try:
            env_file = read_env_file(self["env-file"]) if self["env-file"] else {}
            _warn_of_unknown_names()
            settings = Settings.from_mapping(values, known_names(os.environ), env_file)
            if self._assistants:
                # Not joined by commas: a comma may be part of an argument.
                settings = Settings.from_values({**settings.values, "ASSISTANT": tuple(self._assistants)})
            self.settings = settings
        except SettingsError as error:
            # Not a UsageError, which would print the whole help above this one sentence.
            sys.exit(f"rapida-media: {error}")
        if self.parent is not None:
            take_over(self.parent, self.settings.process.log_format)


def _warn_of_unknown_names() -> None:
    """Warn of variables that look like settings and are none. The environment is not ours alone: they are no error."""
    groups = {setting.env.partition("__")[0] for setting in all_settings() if "__" in setting.env}
    ours = [name for name in os.environ if "__" in name and name.partition("__")[0] in groups]
    for problem in unknown_names(ours):
        print(f"rapida-media: {problem}", file=sys.stderr)  # noqa: T201


def _refused(option: str, env: str) -> usage.UsageError:
    return usage.UsageError(
        f"--{option} is refused, since every user of this machine can read a command line: set {env} in the environment"
        " or in the env file"
    )


def _refusal(setting: Setting) -> Callable[[Options, str], None]:
    def refuse(options: Options, _: str) -> None:
        raise _refused(setting.option, setting.env)

    refuse.__doc__ = f"refused, as every user can read a command line: set ${setting.env}, or put it into the env file"
    return refuse


for _setting in all_settings():
    if _setting.secret:
        setattr(Options, f"opt_{_setting.option.replace('-', '_')}", _refusal(_setting))


class _CannotStart(StartError, SystemExit):
    """Ends twistd with exit code 1, after it removed its pid file, and without a traceback."""

    code = 1


class _Starter(MultiService):
    """Starts the service, or ends the process with one sentence, in the log and on standard error."""

    _log = Logger()

    def __init__(self) -> None:
        super().__init__()
        # A daemon's own is /dev/null by the time it starts the service.
        self._stderr = os.dup(2)

    def startService(self) -> None:
        try:
            super().startService()
        except StartError as error:
            self._log.critical("cannot start: {error}", error=str(error))
            os.write(self._stderr, f"rapida-media: {masked(str(error))}\n".encode())
            raise _CannotStart(str(error)) from None
        finally:
            os.close(self._stderr)


class _Process(Service):
    """Handles the process's signals.

    SIGTERM and SIGINT stop the server in order, with exit code 0; a second one cuts the drain time short. twistd itself
    would die of the signal in the end, which a supervisor such as systemd takes for a failure.
    """

    def __init__(self, service: RapidaMedia | WorkerSupervisor, systemd: SystemdNotifier) -> None:
        self._service = service
        self._systemd = systemd
        self._stopping = False

    def startService(self) -> None:
        super().startService()
        self._service.reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        # Objects made so far live for ever: without them, full collections pause the clock less.
        gc.collect()
        gc.freeze()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._service.reactor.callFromThread(self._signalled))
        reload = self._service.reload
        signal.signal(signal.SIGHUP, lambda *_: self._service.reactor.callFromThread(reload))

    def _signalled(self) -> None:
        if self._stopping:
            self._service.hurry()
        else:
            self._stopping = True
            self._systemd.stopping()
            self._service.reactor.stop()


def _print(text: str) -> None:
    """Print for the person who started the program; not to the log, since the text may contain a key."""
    if sys.__stdout__ is not None:
        print(text, file=sys.__stdout__, flush=True)


def _reactor_name(options: Options) -> str:
    """The reactor that twistd was told to use; the workers use asyncio's otherwise."""
    return str(options.parent.get("reactor", ASYNCIO)) if options.parent is not None else ASYNCIO


def makeService(options: Options) -> IService:
    """Make the service of these options; twistd calls it."""
    from twisted.internet import reactor

    use_monotonic_time(reactor)
    systemd = SystemdNotifier(reactor)

    def announce(text: str) -> None:
        _print(text)
        systemd.ready()

    # Before it is handled, it must not end the program.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        service: RapidaMedia | WorkerSupervisor = (
            make_supervisor(options.settings, reactor, announce, _reactor_name(options))
            if options.settings.process.workers > 1
            else RapidaMedia(options.settings, reactor=reactor, announce=announce)
        )
    except SettingsError as error:
        sys.exit(f"rapida-media: {masked(str(error))}")
    starter = _Starter()
    _Process(service, systemd).setServiceParent(starter)
    service.setServiceParent(starter)
    return starter
