"""``rapida-media-ctl``: an operator's commands for a rapida-media server, from a shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections import ChainMap
from collections.abc import Mapping, Sequence

from rapida_twisted.errors import RapidaError
from rapida_twisted.settings import check_names, read_env_file
from rapida_twisted.tools.api_key import state_directory
from rapida_twisted.tools.ctl import calls, dial, dialplan, doctor, key, vault
from rapida_twisted.tools.ctl.options import GroupedHelp, UsageError
from rapida_twisted.tools.ctl.running_server import server_url

__all__ = ["main", "make_parser"]


def make_parser() -> argparse.ArgumentParser:
    """The command line. Each subcommand sets ``run``, which takes the parsed arguments and the environment."""
    parser = argparse.ArgumentParser(
        prog="rapida-media-ctl",
        formatter_class=GroupedHelp,
        allow_abbrev=False,
        description="Operates a rapida-media server: its calls, keys, vault and dialplan.",
        epilog="No option takes a password or a key: every user of a machine can read a command line."
        " Exit codes: 0 success, 1 failure, 2 wrong command line.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (calls, dial, vault, key, dialplan, doctor):
        module.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    code = 1
    try:
        environ = _environment(arguments)
        arguments.state_dir = state_directory(arguments.state_dir, environ)
        if arguments.asks_server and arguments.http is None:
            arguments.http = server_url(environ)
        code = arguments.run(arguments, environ)
        sys.stdout.flush()
    except UsageError as error:
        arguments.parser.error(str(error))
    except (RapidaError, ValueError) as error:
        print(f"rapida-media-ctl: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The reader closed the pipe; Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)


def _environment(arguments: argparse.Namespace) -> Mapping[str, str]:
    """The environment, and below it the server's env file."""
    environ = {name: value for name, value in os.environ.items() if value}
    if arguments.env_file is None:
        return environ
    env_file = read_env_file(str(arguments.env_file))
    check_names(env_file)
    return ChainMap(environ, env_file)
