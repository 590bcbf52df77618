"""What is looked at before a server starts: better now than with the first call."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import NamedTuple

from rapida_twisted.asterisk.vault.vault import Vault
from rapida_twisted.credentials.key_file import load_or_make_key, make_state_dir
from rapida_twisted.credentials.key_ring import KeyRing, keys_path
from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.errors import SettingsError, StartError
from rapida_twisted.settings import Settings

__all__ = ["Keys", "check_start"]


class Keys(NamedTuple):
    """The API keys that are accepted."""

    plain: tuple[str, ...]
    """Those of the environment, or the one in the state directory."""
    is_new: bool
    """Whether that one was made just now."""
    ring: KeyRing
    """Those with names."""


def check_start(settings: Settings, vault: Vault, keys_broke: Callable[[str], None]) -> Keys:
    """Whether a server could start, as far as that can be told before.

    :param keys_broke: called with a sentence when the file of keys can't be read any more.
    :raises StartError: the state directory, the API keys or the vault can't be used; the text is one sentence.
    """
    raise_file_limit()
    make_state_dir(settings.state_dir)
    plain, is_new = settings.api_keys, False
    if not plain:
        key, is_new = load_or_make_key(settings.state_dir)
        keep_out_of_logs(key)
        plain = (key,)
    try:
        vault.list()
    except SettingsError as error:
        raise StartError(str(error)) from None
    ring = KeyRing(keys_path(settings.keys_file, settings.state_dir), keys_broke)
    ring.load()
    return Keys(plain, is_new, ring)


def raise_file_limit() -> None:
    """A call is a file descriptor: allow as many as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
