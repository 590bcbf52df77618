"""Settings: one frozen object, parsed and checked once at start.

Each setting has one name in the environment (``AUDIOSOCKET__PORT``) and the same in lower case with dashes on the
command line (``--audiosocket-port``). Options win over the environment, that over an env file, that over defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from rapida_twisted.errors import SettingsError
from rapida_twisted.settings import groups
from rapida_twisted.settings.env_file import read_env_file
from rapida_twisted.settings.groups import default_state_dir
from rapida_twisted.settings.setting import Setting, load, settings_of
from rapida_twisted.settings.setting import unknown_names as _unknown_names

__all__ = [
    "Setting", "Settings", "all_settings", "check_names", "default_state_dir", "known_names", "load", "read_env_file",
    "unknown_names",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, in groups. Each has a default; each group is checked when it is made."""

    process: groups.ProcessSettings = field(default_factory=groups.ProcessSettings)
    audiosocket: groups.AudioSocketSettings = field(default_factory=groups.AudioSocketSettings)
    http: groups.HttpSettings = field(default_factory=groups.HttpSettings)
    admin: groups.AdminSettings = field(default_factory=groups.AdminSettings)
    connections: groups.ConnectionSettings = field(default_factory=groups.ConnectionSettings)
    public: groups.PublicSettings = field(default_factory=groups.PublicSettings)
    keys: groups.KeySettings = field(default_factory=groups.KeySettings)
    store: groups.StoreSettings = field(default_factory=groups.StoreSettings)
    assistants: groups.AssistantSettings = field(default_factory=groups.AssistantSettings)
    recordings: groups.RecordingSettings = field(default_factory=groups.RecordingSettings)
    media: groups.MediaSettings = field(default_factory=groups.MediaSettings)
    limits: groups.LimitSettings = field(default_factory=groups.LimitSettings)
    outbound: groups.OutboundSettings = field(default_factory=groups.OutboundSettings)
    ari: groups.AriSettings = field(default_factory=groups.AriSettings)
    webhook: groups.WebhookSettings = field(default_factory=groups.WebhookSettings)
    tls: groups.TlsSettings = field(default_factory=groups.TlsSettings)
    vault: groups.VaultSettings = field(default_factory=groups.VaultSettings)
    upstream: groups.UpstreamSettings = field(default_factory=groups.UpstreamSettings)

    def __post_init__(self) -> None:
        if self.process.workers > 1 and self.store.url == "memory:":
            raise SettingsError("STORE__URL can't be memory: with several workers, which share the store")
        ports = (self.audiosocket.endpoint, self.http.endpoint, self.http.https_endpoint)
        if not self.connections.proxy_allow and any(map(_is_open_to_headers, ports)):
            raise SettingsError(
                "an endpoint haproxy:tcp:... needs PROXY__ALLOW, the networks of the proxies, such as 10.0.0.10/32: any"
                " other client could claim any address"
            )

    @classmethod
    def from_mapping(cls, *sources: Mapping[str, str]) -> Settings:
        """Make the settings from texts by their environment names; an earlier source wins. Empty texts are ignored.

        :raises SettingsError: a name is no setting, or a text can't be used; the message is one sentence.
        """
        for source in sources:
            check_names(source)
        return cls(**{name: load(group, *sources) for name, group in _groups().items()})

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Settings:
        """Make the settings from values by their environment names, as :attr:`values` returns them. Names that are no
        settings are ignored.

        :raises SettingsError: a value can't be used.
        """
        return cls(
            **{
                name: group(**{item.attribute: values[item.env] for item in settings_of(group) if item.env in values})
                for name, group in _groups().items()
            }
        )

    @property
    def values(self) -> dict[str, Any]:
        """All values by their environment names; secrets, too."""
        return {
            item.env: getattr(getattr(self, name), item.attribute)
            for name, group in _groups().items()
            for item in settings_of(group)
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        """All texts that must not be seen, in a log for instance."""
        values, found = self.values, [urlsplit(self.store.url).password or ""]
        for item in all_settings():
            if item.secret:
                value = values[item.env]
                found.extend([value] if isinstance(value, str) else value)
        return tuple(filter(None, found))


def _is_open_to_headers(endpoint: str) -> bool:
    """Whether any client that reaches this endpoint can send a PROXY header; a UNIX socket has its permissions."""
    return endpoint.startswith("haproxy:") and not endpoint.startswith("haproxy:unix:")


def _groups() -> dict[str, Any]:
    return {item.name: item.default_factory for item in fields(Settings)}


def all_settings() -> list[Setting]:
    """All settings, in the order in which help shows them."""
    return [item for group in _groups().values() for item in settings_of(group)]


def unknown_names(names: Mapping[str, object] | list[str]) -> list[str]:
    """A sentence for each name that is no setting, with the nearest one that is."""
    return _unknown_names(names, [item.env for item in all_settings()])


def check_names(source: Mapping[str, str]) -> None:
    """:raises SettingsError: a name is no setting; the text is one sentence, with the nearest one that is."""
    for problem in unknown_names(source):
        raise SettingsError(problem)


def known_names(environ: Mapping[str, str]) -> dict[str, str]:
    """Those variables of a process's environment that are settings."""
    return {item.env: environ[item.env] for item in all_settings() if item.env in environ}
