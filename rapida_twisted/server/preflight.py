"""Checks before a server starts: the state directory, API keys, vault and limits."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import NamedTuple

from twisted.logger import Logger

from rapida_twisted.asterisk.vault.vault import Vault
from rapida_twisted.credentials.api_keys import ApiKeys
from rapida_twisted.credentials.key_file import is_open_to_others, load_or_make_key, make_state_dir
from rapida_twisted.credentials.key_ring import KeyRing, keys_path
from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.errors import SettingsError, StartError
from rapida_twisted.settings.groups import ConnectionSettings, KeySettings, LimitSettings

__all__ = ["Keys", "check_start", "warn_of_limits"]

_log = Logger()


class Keys(NamedTuple):
    """The API keys that the server accepts."""

    accepted: ApiKeys
    first: str
    """One without a name: from the environment or from the state directory."""
    is_new: bool
    """Whether the server has just made it."""


def check_start(state_dir: Path, keys: KeySettings, vault: Vault) -> Keys:
    """Prepare the state directory, and load the API keys.

    :raises StartError: the state directory, the API keys or the vault can't be used; the text is one sentence.
    """
    raise_file_limit()
    make_state_dir(state_dir)
    if is_open_to_others(state_dir):
        _log.warn("other users can enter the state directory {path}: chmod 700 {path}", path=str(state_dir))
    plain, is_new = keys.api_keys, False
    if not plain:
        key, is_new = load_or_make_key(state_dir)
        keep_out_of_logs(key)
        plain = (key,)
    try:
        vault.list()
    except SettingsError as error:
        raise StartError(str(error)) from None
    ring = KeyRing(keys_path(keys.file, state_dir), lambda problem: _log.error("{problem}", problem=problem))
    ring.load()
    return Keys(ApiKeys(plain, ring), plain[0], is_new)


def raise_file_limit() -> None:
    """Allow as many open files as this user may have: each call needs a file descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def warn_of_limits(limits: LimitSettings, connections: ConnectionSettings) -> None:
    """Warn if one Asterisk, which is one address, can't connect as many calls as the server takes."""
    most = min(connections.max, connections.of_address)
    if limits.max_calls > most:
        _log.warn(
            "MAX_CALLS is {calls}, but CONNECTIONS__MAX and CONNECTIONS__OF_ADDRESS let one address make {most}"
            " connections",
            calls=limits.max_calls, most=most,
        )  # fmt: skip
