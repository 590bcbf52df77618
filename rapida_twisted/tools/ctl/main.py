"""``rapida-media-ctl``: what an operator does with a rapida-media server from a shell."""

from __future__ import annotations

import argparse
import os
import sys
from collections import ChainMap
from collections.abc import Mapping, Sequence

from rapida_twisted.errors import RapidaError
from rapida_twisted.settings import read_env_file
from rapida_twisted.tools.ctl import calls, dial, dialplan, doctor, key, vault
from rapida_twisted.tools.ctl.options import GroupedHelp, UsageError

__all__ = ["main", "make_parser"]


def make_parser() -> argparse.ArgumentParser:
    """The command line. Each subcommand sets ``run``, which is called with the words and the environment."""
    parser = argparse.ArgumentParser(
        prog="rapida-media-ctl",
        formatter_class=GroupedHelp,
        allow_abbrev=False,
        description="What an operator does with a rapida-media server: its calls, its keys, its vault, its dialplan.",
        epilog="No password and no key is ever an option's value: every user of a machine can read a command line."
        " Exit codes: 0 done, 1 it could not be done, 2 the command line can't be used.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    calls.add_commands(commands)
    dial.add_commands(commands)
    vault.add_commands(commands)
    key.add_commands(commands)
    dialplan.add_commands(commands)
    doctor.add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    words = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        code = words.run(words, _environment(words))
        sys.stdout.flush()
    except UsageError as error:
        words.parser.error(str(error))
    except (RapidaError, ValueError) as error:
        print(f"rapida-media-ctl: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 1
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python shall not try to write the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    raise SystemExit(code)


def _environment(words: argparse.Namespace) -> Mapping[str, str]:
    """The environment, and below it the env file that the server was given."""
    environ = {name: word for name, word in os.environ.items() if word}
    return environ if words.env_file is None else ChainMap(environ, read_env_file(str(words.env_file)))
