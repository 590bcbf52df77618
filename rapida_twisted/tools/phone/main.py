"""``rapida-phone``: a telephone without an Asterisk."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rapida_twisted.tools.command_line import surviving_a_closed_pipe
from rapida_twisted.tools.phone.options import parse_options
from rapida_twisted.tools.terminal import has_colour

__all__ = ["main"]

FAILED, INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> None:
    """Place the calls of a command line, and print the summary."""
    with surviving_a_closed_pipe():
        options = parse_options(sys.argv[1:] if argv is None else argv)
    # Here, so that --help and a wrong command line are quick.
    from rapida_twisted.tools.phone.phone import run_phone
    from rapida_twisted.tools.phone.report import summary_object, summary_text

    phone, reports = run_phone(options)
    with surviving_a_closed_pipe():
        if options.as_json:
            print(json.dumps(summary_object(reports, phone.sending_late_ms)))
        elif reports:
            print(summary_text(reports, phone.sending_late_ms, has_colour(sys.stdout)))
        else:
            print("interrupted before any call was placed")
    if phone.interrupted:
        raise SystemExit(INTERRUPTED)
    raise SystemExit(0 if all(report.ok for report in reports) else FAILED)
