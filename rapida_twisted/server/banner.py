"""The banner: what a person who started the server needs next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from rapida_twisted.asterisk.dialplan import DialplanValues, audiosocket_dialplan
from rapida_twisted.credentials.key_file import KEY_FILE
from rapida_twisted.ports.server_ports import AUDIOSOCKET, HTTP
from rapida_twisted.server.addresses import addresses
from rapida_twisted.server.preflight import Keys
from rapida_twisted.settings import Settings, default_state_dir
from rapida_twisted.settings.groups import host_for

__all__ = ["banner", "banner_text"]


def banner(settings: Settings, keys: Keys, port_of: Callable[[str], int], assistant_ids: Iterable[str]) -> str:
    """The banner of a server whose ports listen.

    :param port_of: returns a port's number by its name.
    """
    found = addresses(settings, port_of, assistant_ids)
    values = DialplanValues(
        api_key=keys.first,
        http_url=f"http://{found.http_host}:{port_of(HTTP)}",
        audiosocket_host=found.audiosocket_host,
        audiosocket_port=found.audiosocket_port or port_of(AUDIOSOCKET),
        assistant_id=found.assistant_id,
    )
    admin = f"http://{host_for(settings.admin.host)}:{found.admin_port}" if found.admin_port else ""
    return banner_text(
        values, settings.process.state_dir, key_is_new=keys.is_new, key_is_set=bool(settings.keys.api_keys), admin=admin
    )


def banner_text(values: DialplanValues, state_dir: Path, *, key_is_new: bool, key_is_set: bool, admin: str = "") -> str:
    """The addresses, the API key, the dialplan, and the command that places a test call.

    :param key_is_new: the server has just made the key; only then is it shown.
    :param key_is_set: the key is from the environment, not from the state directory.
    :param admin: the address for operators; empty: there is none.
    """
    if key_is_new:
        key_line = f"API key:      {values.api_key}   (shown this once; kept in {state_dir / KEY_FILE})"
        shown = values
    else:
        where = "$RAPIDA_API_KEY" if key_is_set else str(state_dir / KEY_FILE)
        key_line = f"API key:      the one in {where}"
        shown = replace(values, api_key=f"<the key in {where}>")
    return "\n".join(
        (
            "",
            "rapida-media is listening.",
            f"HTTP:         {values.http_url}",
            f"AudioSocket:  {values.audiosocket_host}:{values.audiosocket_port}",
            *([f"Operators:    {admin}   (/metrics, /readyz, /v1/calls)"] if admin else []),
            key_line,
            "",
            "Place a test call from another terminal:",
            "",
            f"    {phone_command(values, None if key_is_set else state_dir)}",
            "",
            "Or paste this into your Asterisk's dialplan, and dial:",
            "",
            _indented(audiosocket_dialplan(shown)),
        )
    )


def phone_command(values: DialplanValues, state_dir: Path | None) -> str:
    """The ``rapida-phone`` command that calls this server.

    :param state_dir: where the API key is; None: in the environment.
    """
    phone = Path(sys.executable).with_name("rapida-phone")
    command = [str(phone) if phone.exists() else "rapida-phone"]
    if values.http_url != "http://127.0.0.1:8080":
        command += ["--http", values.http_url]
    if (values.audiosocket_host, values.audiosocket_port) != ("127.0.0.1", 4573):
        command += ["--audiosocket", f"{values.audiosocket_host}:{values.audiosocket_port}"]
    if values.assistant_id != "123456789":
        command += ["--assistant", values.assistant_id]
    if state_dir is not None and state_dir != default_state_dir():
        command += ["--key-file", str(state_dir / KEY_FILE)]
    return shlex.join([*command, "--tone", "440", "--duration", "10", "--save", "heard.wav"])


def _indented(text: str) -> str:
    return "\n".join("    " + line if line else "" for line in text.splitlines())
