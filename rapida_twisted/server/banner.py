"""What a person who started the server needs next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan
from rapida_twisted.credentials.key_file import KEY_FILE
from rapida_twisted.settings import Settings, default_state_dir

__all__ = ["dialplan_values", "welcome_text"]


def dialplan_values(
    settings: Settings, key: str, port_of: Callable[[str], int], assistant_ids: Iterable[str]
) -> DialplanValues:
    """What a dialplan must know of this server.

    :param port_of: gives the port of ``HTTP`` and ``AudioSocket``.
    """
    return DialplanValues(
        api_key=key,
        http_url=f"http://{settings.public_host(settings.http_host)}:{port_of('HTTP')}",
        audiosocket_host=settings.public_host(settings.audiosocket_host),
        audiosocket_port=settings.public_audiosocket_port or port_of("AudioSocket"),
        assistant_id=next((name for name in assistant_ids if name != "*"), "123456789"),
    )


def welcome_text(settings: Settings, values: DialplanValues, key_is_new: bool) -> str:
    """The addresses, the key (only when it was made just now), the dialplan, and the line that places a test call."""
    if key_is_new:
        key_line = f"API key:      {values.api_key}   (shown this once; kept in {settings.state_dir / KEY_FILE})"
        shown = values
    else:
        where = "$RAPIDA_API_KEY" if settings.api_keys else str(settings.state_dir / KEY_FILE)
        key_line = f"API key:      the one in {where}"
        shown = DialplanValues(
            f"<the key in {where}>",
            values.http_url,
            values.audiosocket_host,
            values.audiosocket_port,
            values.assistant_id,
        )
    return "\n".join(
        (
            "",
            "rapida-media is listening.",
            f"HTTP:         {values.http_url}",
            f"AudioSocket:  {values.audiosocket_host}:{values.audiosocket_port}",
            key_line,
            "",
            "Place a test call from another terminal:",
            "",
            f"    {phone_command(settings, values)}",
            "",
            "Or paste this into your Asterisk's dialplan, and dial:",
            "",
            _indented(audiosocket_dialplan(shown)),
        )
    )


def phone_command(settings: Settings, values: DialplanValues) -> str:
    """The ``rapida-phone`` line that calls this server."""
    phone = Path(sys.executable).with_name("rapida-phone")
    words = [str(phone) if phone.exists() else "rapida-phone"]
    if values.http_url != "http://127.0.0.1:8080":
        words += ["--http", values.http_url]
    if (values.audiosocket_host, values.audiosocket_port) != ("127.0.0.1", 4573):
        words += ["--audiosocket", f"{values.audiosocket_host}:{values.audiosocket_port}"]
    if values.assistant_id != "123456789":
        words += ["--assistant", values.assistant_id]
    if not settings.api_keys and settings.state_dir != default_state_dir():
        words += ["--key-file", str(settings.state_dir / KEY_FILE)]
    return shlex.join([*words, "--tone", "440", "--duration", "10", "--save", "heard.wav"])


def _indented(text: str) -> str:
    return "\n".join("    " + line if line else "" for line in text.splitlines())
