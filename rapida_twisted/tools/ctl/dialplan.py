"""``rapida-media-ctl dialplan``: the lines of Asterisk's configuration for this very server."""

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
from rapida_twisted.settings import Settings
from rapida_twisted.tools.api_key import find_api_key, state_directory
from rapida_twisted.tools.ctl.options import UsageError, add_command, http_url

__all__ = ["add_commands", "first_assistant"]

DEFAULT_ASSISTANT = "123456789"

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[?[0-9A-Fa-f:.]{2,45}\]?")
_ASSISTANT = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_FILE = re.compile(r"/[A-Za-z0-9._/+-]{1,254}")


def add_commands(commands: Any) -> None:
    """Add ``dialplan``."""
    parser = add_command(commands, "dialplan", _dialplan, "print the lines of Asterisk's configuration for this server")
    parser.add_argument(
        "--transport", choices=("audiosocket", "websocket"), default="audiosocket", help="[default: audiosocket]"
    )
    parser.add_argument("--assistant", metavar="ID", type=_word(_ASSISTANT), help="whom to call [default: the first]")
    parser.add_argument(
        "--host",
        metavar="PUBLIC_HOST",
        type=_word(_HOST),
        help="how Asterisk reaches this server [default: $PUBLIC_ASSISTANT_HOST, or where it listens]",
    )
    parser.add_argument(
        "--http", metavar="URL", type=http_url, help="how Asterisk reaches its HTTP port [default: of the settings]"
    )
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        type=_word(_FILE),
        help="on Asterisk's machine, the certificate of your own authority, which signed the server's",
    )
    parser.add_argument("--transfer", action="store_true", help="with the lines that ask where a transferred call goes")
    parser.add_argument(
        "--stasis",
        action="store_true",
        help="calls go to the server's Stasis application instead: there is no API key in the dialplan",
    )
    parser.add_argument("--credential", metavar="NAME", help="of the vault: the lines for its ARI")
    parser.add_argument("--with-key", action="store_true", help="put the API key in, not where it is to be found")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="file of the API key [default: the server's own]")


def _dialplan(words: argparse.Namespace, environ: Mapping[str, str]) -> int:
    settings = Settings.from_mapping(environ)
    if words.stasis:
        parts, modules = [_stasis_dialplan(words, environ, settings)], stasis_modules()
    elif words.transport == "websocket":
        values, ca_file = _values(words, environ, settings), words.ca_file or ""
        parts = [
            websocket_dialplan(values, ca_file, transfer=words.transfer),
            websocket_outbound_dialplan(ca_file, transfer=words.transfer),
            websocket_client_conf(values, ca_file),
        ]
        modules = websocket_modules()
    else:
        values = _values(words, environ, settings)
        parts = [
            audiosocket_dialplan(values, transfer=words.transfer),
            audiosocket_outbound_dialplan(transfer=words.transfer),
        ]
        modules = audiosocket_modules()
    ari = _ari_values(words, environ)
    print("\n".join([*parts, http_conf(ari), ari_conf(ari), modules_conf(modules)]), end="")
    return 0


def _stasis_dialplan(words: argparse.Namespace, environ: Mapping[str, str], settings: Settings) -> str:
    if words.transport == "websocket":
        raise UsageError("with --stasis the media is AudioSocket: leave --transport out")
    words.credential = words.credential or _only_credential(words, environ)
    app = app_name(settings.ari_app, words.credential)
    return stasis_dialplan(app, words.assistant or first_assistant(settings), transfer=words.transfer)


def _only_credential(words: argparse.Namespace, environ: Mapping[str, str]) -> str:
    entries = open_vault(state_directory(words.state_dir, environ), environ).list()
    if len(entries) != 1:
        raise UsageError(
            "the application's name ends with the name of the credential that this Asterisk has in the vault: name it"
            " (--credential)"
        )
    return entries[0].name


def _values(words: argparse.Namespace, environ: Mapping[str, str], settings: Settings) -> DialplanValues:
    http_host = bracketed(words.host) if words.host else settings.public_host(settings.http_host)
    audiosocket_host = bracketed(words.host) if words.host else settings.public_host(settings.audiosocket_host)
    if not words.http and (settings.http_endpoint or not settings.http_port) and not settings.https_endpoint:
        raise UsageError("the settings do not say at which port HTTP is: name its address (--http)")
    if words.transport == "audiosocket" and (settings.audiosocket_endpoint or not settings.audiosocket_port):
        raise UsageError("the settings do not say at which port AudioSocket is: set AUDIOSOCKET__PORT")
    return DialplanValues(
        api_key=_key(words, environ),
        http_url=words.http or _public_url(http_host, settings),
        audiosocket_host=audiosocket_host,
        audiosocket_port=settings.audiosocket_port,
        assistant_id=words.assistant or first_assistant(settings),
    )


def _public_url(host: str, settings: Settings) -> str:
    """The address with TLS, if there is one."""
    if not settings.https_endpoint:
        return f"http://{host}:{settings.http_port}"
    # ssl:PORT:..., whose port may be named, too
    found = re.match(r"ssl:(?:port=)?(\d+)(?::|$)", settings.https_endpoint)
    if found is None:
        raise UsageError("the settings do not say at which port HTTPS is: name its address (--http)")
    return f"https://{host}" if found[1] == "443" else f"https://{host}:{found[1]}"


def first_assistant(settings: Settings) -> str:
    """The first assistant that the settings name, or the one of the examples."""
    ids = (rule.partition("=")[0].strip() for rule in settings.assistant)
    return next((name for name in ids if _ASSISTANT.fullmatch(name)), DEFAULT_ASSISTANT)


def _key(words: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """The API key, or words for where it is."""
    if words.with_key:
        try:
            return find_api_key(words.key_file, words.state_dir, environ)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if words.key_file is None and environ.get("RAPIDA_API_KEY"):
        return "<the key in $RAPIDA_API_KEY>"
    return f"<the key in {words.key_file or state_directory(words.state_dir, environ) / KEY_FILE}>"


def _ari_values(words: argparse.Namespace, environ: Mapping[str, str]) -> AriValues:
    if words.credential is None:
        return AriValues()
    credential = open_vault(state_directory(words.state_dir, environ), environ).get(words.credential)
    return AriValues(
        url=credential.ari_url,
        user=credential.ari_user,
        password=f"<the ari_password of credential {credential.name}>",
    )


def _word(pattern: re.Pattern[str]) -> Any:
    """What a dialplan takes as it is: nothing that ends an argument, or is expanded."""

    def parse(word: str) -> str:
        if not pattern.fullmatch(word):
            raise argparse.ArgumentTypeError("it holds a character that has no place in a dialplan, or is too long")
        return word

    return parse
