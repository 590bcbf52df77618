"""``rapida-media-ctl dialplan``: prints Asterisk's configuration for this server."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rapida_twisted.asterisk.asterisk_conf import (
    AriValues,
    ari_conf,
    audiosocket_modules,
    http_conf,
    modules_conf,
    stasis_modules,
    websocket_modules,
)
from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    audiosocket_outbound_dialplan,
    stasis_dialplan,
    websocket_client_conf,
    websocket_dialplan,
    websocket_outbound_dialplan,
)
from rapida_twisted.asterisk.outbound.trunk import app_name
from rapida_twisted.asterisk.vault.vault import open_vault
from rapida_twisted.credentials.key_file import KEY_FILE
from rapida_twisted.net.addresses import bracketed
from rapida_twisted.settings import load
from rapida_twisted.settings.groups import (
    AriSettings,
    AssistantSettings,
    AudioSocketSettings,
    HttpSettings,
    PublicSettings,
)
from rapida_twisted.tools.api_key import find_api_key
from rapida_twisted.tools.ctl.options import UsageError, add_command, http_url

__all__ = ["add_commands", "first_assistant"]

DEFAULT_ASSISTANT = "123456789"

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
_ASSISTANT = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_FILE = re.compile(r"/[A-Za-z0-9._/+-]{1,254}")


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "dialplan", _dialplan, "print Asterisk's configuration for this server")
    parser.add_argument(
        "--transport", choices=("audiosocket", "websocket"), default="audiosocket", help="[default: audiosocket]"
    )
    parser.add_argument("--assistant", metavar="ID", type=_matching(_ASSISTANT), help="assistant [default: the first]")
    parser.add_argument(
        "--host",
        metavar="PUBLIC_HOST",
        type=_matching(_HOST),
        help="address of this server for Asterisk [default: $PUBLIC_ASSISTANT_HOST, or where it listens]",
    )
    parser.add_argument(
        "--http", metavar="URL", type=http_url, help="address of its HTTP port for Asterisk [default: of the settings]"
    )
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        type=_matching(_FILE),
        help="certificate (on Asterisk's machine) of the private CA that signed the server's",
    )
    parser.add_argument("--transfer", action="store_true", help="add the lines that carry out a transfer")
    parser.add_argument(
        "--stasis",
        action="store_true",
        help="send calls to the server's Stasis application: the dialplan holds no API key",
    )
    parser.add_argument("--credential", metavar="NAME", help="print ARI's lines for this credential of the vault")
    parser.add_argument("--with-key", action="store_true", help="print the API key instead of its location")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="file of the API key [default: the server's own]")


def _dialplan(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    if arguments.stasis:
        parts, modules = [_stasis_dialplan(arguments, environ)], stasis_modules()
    elif arguments.transport == "websocket":
        values, ca_file = _values(arguments, environ), arguments.ca_file or ""
        parts = [
            websocket_dialplan(values, ca_file, transfer=arguments.transfer),
            websocket_outbound_dialplan(ca_file, transfer=arguments.transfer),
            websocket_client_conf(values, ca_file),
        ]
        modules = websocket_modules()
    else:
        values = _values(arguments, environ)
        parts = [
            audiosocket_dialplan(values, transfer=arguments.transfer),
            audiosocket_outbound_dialplan(transfer=arguments.transfer),
        ]
        modules = audiosocket_modules()
    ari = _ari_values(arguments, environ)
    print("\n".join([*parts, http_conf(ari), ari_conf(ari), modules_conf(modules)]), end="")
    return 0


def _stasis_dialplan(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    if arguments.transport == "websocket":
        raise UsageError("--stasis uses AudioSocket: omit --transport")
    arguments.credential = arguments.credential or _only_credential(arguments, environ)
    app = app_name(load(AriSettings, environ).app, arguments.credential)
    return stasis_dialplan(app, arguments.assistant or first_assistant(environ), transfer=arguments.transfer)


def _only_credential(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    entries = open_vault(arguments.state_dir, environ).list()
    if len(entries) != 1:
        raise UsageError(
            "the application's name ends with the credential's name: name this Asterisk's credential (--credential)"
        )
    return entries[0].name


def _values(arguments: argparse.Namespace, environ: Mapping[str, str]) -> DialplanValues:
    http, audiosocket = load(HttpSettings, environ), load(AudioSocketSettings, environ)
    public = load(PublicSettings, environ)
    host = bracketed(arguments.host) if arguments.host else ""
    if not arguments.http and (http.endpoint or not http.port) and not http.https_endpoint:
        raise UsageError("the settings do not name the HTTP port: name the address (--http)")
    if arguments.transport == "audiosocket" and (audiosocket.endpoint or not audiosocket.port):
        raise UsageError("the settings do not name the AudioSocket port: set AUDIOSOCKET__PORT")
    return DialplanValues(
        api_key=_key(arguments, environ),
        http_url=arguments.http or _public_url(host or public.host_for(http.host), http),
        audiosocket_host=host or public.host_for(audiosocket.host),
        audiosocket_port=audiosocket.port,
        assistant_id=arguments.assistant or first_assistant(environ),
    )


def _public_url(host: str, http: HttpSettings) -> str:
    """The server's address, with TLS if it has any."""
    if not http.https_endpoint:
        return f"http://{host}:{http.port}"
    # ssl:PORT:... or ssl:port=PORT:...
    found = re.match(r"ssl:(?:port=)?(\d+)(?::|$)", http.https_endpoint)
    if found is None:
        raise UsageError("the settings do not name the HTTPS port: name the address (--http)")
    return f"https://{host}" if found[1] == "443" else f"https://{host}:{found[1]}"


def first_assistant(environ: Mapping[str, str]) -> str:
    """The first assistant that the settings name, else the examples' one."""
    ids = (rule.partition("=")[0].strip() for rule in load(AssistantSettings, environ).rules)
    return next((name for name in ids if _ASSISTANT.fullmatch(name)), DEFAULT_ASSISTANT)


def _key(arguments: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The API key, or a placeholder that names its location."""
    if arguments.with_key:
        try:
            return find_api_key(arguments.key_file, arguments.state_dir, environ)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if arguments.key_file is None and environ.get("RAPIDA_API_KEY"):
        return "<the key in $RAPIDA_API_KEY>"
    return f"<the key in {arguments.key_file or arguments.state_dir / KEY_FILE}>"


def _ari_values(arguments: argparse.Namespace, environ: Mapping[str, str]) -> AriValues:
    if arguments.credential is None:
        return AriValues()
    credential = open_vault(arguments.state_dir, environ).get(arguments.credential)
    return AriValues(
        url=credential.ari_url, user=credential.ari_user, password=f"<the ari_password of credential {credential.name}>"
    )


def _matching(pattern: re.Pattern[str]) -> Any:
    """An argument type for text that a dialplan neither splits nor expands."""

    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise argparse.ArgumentTypeError("it is too long, or holds a character that is not allowed in a dialplan")
        return text

    return parse
