"""``rapida-media-ctl``: an operator's commands for a rapida-media server, from a shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections import ChainMap
from collections.abc import Container, Mapping, Sequence
from importlib import import_module

from rapida_twisted.errors import RapidaError
from rapida_twisted.settings import check_names, read_env_file
from rapida_twisted.tools.api_key import state_directory
from rapida_twisted.tools.command_line import SHELLS, CommandLine, UsageError, completion, surviving_a_closed_pipe
from rapida_twisted.tools.ctl.options import COMMANDS, add_command

__all__ = ["main", "make_parser"]


def make_parser(wanted: Container[str] = COMMANDS) -> CommandLine:
    """The command line. Each subcommand sets ``run``, which takes the parsed arguments and the environment.

    :param wanted: the commands whose modules are imported. Of the others the parser knows the names alone.
    """
    parser = CommandLine(
        prog="rapida-media-ctl",
        version=True,
        description="Operates a rapida-media server: its calls, keys, vault and dialplan.",
        epilog="No option takes a password or a key: every user of a machine can read a command line."
        " Exit codes: 0 success, 1 failure, 2 wrong command line.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    modules = {module for name, (module, _) in COMMANDS.items() if name in wanted}
    for name, (module, help) in COMMANDS.items():
        if name in commands.choices:
            continue  # Its module adds several.
        if module not in modules:
            commands.add_parser(name, help=help)
        elif module:
            import_module(f"rapida_twisted.tools.ctl.{module}").add_commands(commands)
        else:
            add_command(commands, name, _completion).add_argument("shell", choices=SHELLS)
    return parser


def _completion(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    print(completion(make_parser(), arguments.shell))
    return 0


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    code = 1
    with surviving_a_closed_pipe():
        arguments = make_parser(argv[:1]).parse_args(argv)
        try:
            environ = _environment(arguments)
            arguments.state_dir = state_directory(arguments.state_dir, environ)
            if arguments.asks_server and arguments.http is None:
                from rapida_twisted.tools.ctl.running_server import server_url

                arguments.http = server_url(environ)
            code = arguments.run(arguments, environ)
        except UsageError as error:
            arguments.parser.error(str(error))
        except (RapidaError, ValueError) as error:
            print(f"rapida-media-ctl: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            pass
    raise SystemExit(code)


def _environment(arguments: argparse.Namespace) -> Mapping[str, str]:
    """The environment, and below it the server's env file."""
    environ = {name: value for name, value in os.environ.items() if value}
    if arguments.env_file is None:
        return environ
    env_file = read_env_file(str(arguments.env_file))
    check_names(env_file)
    return ChainMap(environ, env_file)
