"""The settings: one frozen object, made once from words, checked once.

Each setting has one name in the environment (``AUDIOSOCKET__PORT``) and the same in lower case with dashes on the
command line (``--audiosocket-port``). Options win over the environment, that over an env file, that over defaults.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rapida_twisted.errors import SettingsError
from rapida_twisted.net.addresses import bracketed

__all__ = ["SettingInfo", "Settings", "all_settings", "default_state_dir", "read_env_file", "unknown_names"]


def default_state_dir() -> Path:
    """Where state is kept unless told: systemd's ``STATE_DIRECTORY``, else under the user's XDG state directory."""
    from_systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if from_systemd:
        return Path(from_systemd)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "rapida-media"


def _text(word: str) -> str:
    return word


def _host(word: str) -> str:
    if not all(character.isalnum() or character in ".-_:" for character in word) or not word.isascii():
        raise ValueError("a host is a name or an address, without a port and without brackets")
    return word


def _port(word: str) -> int:
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else -1
    if not 0 <= number <= 65535:
        raise ValueError("a port is a number from 0 (any free one) to 65535")
    return number


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= 31_536_000:
        raise ValueError("a time is a number of seconds, not negative and at most a year")
    return seconds


def _milliseconds(word: str) -> float:
    number = float(word) if word.replace(".", "", 1).isdigit() and word.isascii() else -1
    if not 20 <= number <= 10_000:
        raise ValueError("a lead is a number of milliseconds from 20 to 10000")
    return number


def _count(word: str) -> int:
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0
    if number < 1:
        raise ValueError("a limit is a whole number from 1 to 999999999")
    return number


def _workers(word: str) -> int:
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 3 else -1
    if not 0 <= number <= 64:
        raise ValueError("it is a number of processes from 0 (one for each core) to 64")
    return number or len(os.sched_getaffinity(0))


def _rate(word: str) -> float:
    number = float(word) if re.fullmatch(r"\d{1,4}(\.\d{1,3})?", word) else 0.0
    if not 0.01 <= number <= 1000:
        raise ValueError("a rate is a number from 0.01 to 1000")
    return number


def _speed(word: str) -> float:
    number = float(word) if re.fullmatch(r"\d{1,6}(\.\d{1,3})?", word) else 0.0
    if not 1 <= number <= 100_000:
        raise ValueError("it is a number a second from 1 to 100000")
    return number


def _bytes(word: str) -> int:
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0
    if not 1024 <= number <= 16 * 1024 * 1024:
        raise ValueError("a size is a number of bytes from 1024 to 16777216")
    return number


def _networks(word: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(part) for part in _list(word))
    except ValueError as error:
        raise ValueError(f"networks are as 192.0.2.0/24 or 2001:db8::/32, with commas between them: {error}") from None


def _word(word: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,79}", word):
        raise ValueError("it is a word of letters, digits, '_', '.' and '-'")
    return word


def _format(word: str) -> str:
    if word not in ("ulaw", "alaw", "slin", "slin16"):
        raise ValueError("it is one of ulaw, alaw, slin and slin16")
    return word


def _polling(word: str) -> str:
    if word not in ("auto", "events", "polling"):
        raise ValueError("it is one of auto, events and polling")
    return word


def _control(word: str) -> str:
    if word not in ("plain", "json"):
        raise ValueError("it is plain or json")
    return word


def _truth(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError("it is true or false")
    return word.lower() == "true"


def _log_format(word: str) -> str:
    if word not in ("text", "json"):
        raise ValueError("it is text or json")
    return word


def _url(word: str) -> str:
    try:
        parts = urlsplit(word)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if word and (not known or "@" in parts.netloc or "#" in word or not word.isascii() or not word.isprintable()):
        raise ValueError("it is an address such as https://example.com/calls, without a password in it")
    return word


def _directory(word: str) -> Path:
    try:
        path = Path(word).expanduser().absolute()
        is_file = path.exists() and not path.is_dir()
    except RuntimeError:
        raise ValueError("there is no such user") from None
    except OSError as error:
        raise ValueError(error.strerror) from None
    if is_file:
        raise ValueError("that is a file, and a directory is wanted")
    return path


def _list(word: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in word.split(",") if part.strip())


@dataclass(frozen=True)
class SettingInfo:
    """How one setting is named and explained."""

    attribute: str
    env: str
    parse: Callable[[str], Any]
    default: str
    help: str
    secret: bool

    @property
    def option(self) -> str:
        """Its name on the command line, without the dashes before it."""
        return self.env.lower().replace("__", "-").replace("_", "-")


def _setting(
    env: str, parse: Callable[[str], Any], default: str, help: str, secret: bool = False, shown: bool = True
) -> Any:
    return field(
        default_factory=lambda: parse(default),
        repr=shown and not secret,
        metadata={"env": env, "parse": parse, "default": default, "help": help, "secret": secret},
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the program was told. Made by :meth:`from_mapping`; every field has a default."""

    audiosocket_host: str = _setting("AUDIOSOCKET__HOST", _text, "127.0.0.1", "address that AudioSocket listens on")
    audiosocket_port: int = _setting("AUDIOSOCKET__PORT", _port, "4573", "TCP port of AudioSocket")
    audiosocket_endpoint: str = _setting(
        "AUDIOSOCKET__ENDPOINT",
        _text,
        "",
        "any Twisted endpoint for AudioSocket instead, such as haproxy:tcp:4573 or ssl:4573:privateKey=...:certKey=...",
    )
    audiosocket_allow: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "AUDIOSOCKET__ALLOW",
        _networks,
        "",
        "networks whose addresses may use AudioSocket, such as 192.0.2.0/24,2001:db8::/32; without any, all may",
    )
    audiosocket_uuid_s: float = _setting(
        "AUDIOSOCKET__UUID_S", _seconds, "5", "seconds that a connection has to say which call it is"
    )
    audiosocket_waiting: int = _setting(
        "AUDIOSOCKET__WAITING", _count, "1000", "connections that may not have said which call they are, at once"
    )
    http_host: str = _setting("HTTP__HOST", _text, "127.0.0.1", "address that HTTP (registration) listens on")
    http_port: int = _setting("HTTP__PORT", _port, "8080", "TCP port of HTTP")
    http_endpoint: str = _setting("HTTP__ENDPOINT", _text, "", "any Twisted endpoint for HTTP instead")
    https_endpoint: str = _setting(
        "HTTPS",
        _text,
        "",
        "a Twisted endpoint with TLS for HTTP and WebSocket, beside the one without, such as"
        " ssl:443:privateKey=key.pem:certKey=chain.pem",
    )
    http_body_bytes: int = _setting("HTTP__BODY_BYTES", _bytes, "65536", "size of a request's body at the most (bytes)")
    http_request_s: float = _setting(
        "HTTP__REQUEST_S", _seconds, "30", "seconds until a connection's next request must be there completely"
    )
    message_bytes: int = _setting(
        "WEBSOCKET__MESSAGE_BYTES", _bytes, "65536", "size of a WebSocket message at the most (bytes)"
    )
    proxy_allow: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "PROXY__ALLOW", _networks, "", "networks from which PROXY headers are believed; without any, from all"
    )
    connections: int = _setting("CONNECTIONS__MAX", _count, "5000", "connections at once, for each port")
    connections_of_address: int = _setting(
        "CONNECTIONS__OF_ADDRESS", _count, "2500", "connections at once from one address, for each port"
    )
    connections_rate: float = _setting("CONNECTIONS__RATE", _speed, "4000", "new connections a second, for each port")
    connections_address_rate: float = _setting(
        "CONNECTIONS__ADDRESS_RATE", _speed, "2000", "new connections a second from one address, for each port"
    )
    public_assistant_host: str = _setting(
        "PUBLIC_ASSISTANT_HOST", _host, "", "name or address by which Asterisk reaches this server, for the dialplan"
    )
    public_audiosocket_port: int = _setting(
        "PUBLIC_AUDIOSOCKET_PORT", _port, "0", "port by which Asterisk reaches AudioSocket; 0: the one listened on"
    )
    api_keys: tuple[str, ...] = _setting(
        "RAPIDA_API_KEY", _list, "", "API key, or several with commas; without one, that of the state directory", True
    )
    keys_file: str = _setting(
        "KEYS_FILE", _text, "", "file of API keys with scopes [default: keys.json in the state directory]"
    )
    state_dir: Path = field(
        default_factory=default_state_dir,
        metadata={
            "env": "STATE_DIR",
            "parse": _directory,
            "default": "",
            "help": "directory for calls, the API key and recordings [default: ~/.local/state/rapida-media]",
            "secret": False,
        },
    )
    store_url: str = _setting(
        "STORE__URL",
        _text,
        "sqlite:",
        "where calls are kept: sqlite: (in the state directory), sqlite:/path, memory:, or redis://...,"
        " rediss://..., redis+sentinel://...",
        shown=False,
    )
    assistant: tuple[str, ...] = _setting(
        "ASSISTANT", _list, "*=greeter", "who answers which id, as ID=NAME, ID=NAME:ARGUMENT or ID=module:Class"
    )
    polling: str = _setting(
        "MEDIA__POLLING",
        _polling,
        "auto",
        "who reads the connections of calls: events (the reactor, at once), polling (the media clock, cheaper for"
        " many), or auto, by the load",
    )
    workers: int = _setting(
        "WORKERS", _workers, "1", "processes that share the calls of this machine, from 1 to 64; 0: one for each core"
    )
    drain_s: float = _setting("DRAIN_S", _seconds, "20", "seconds that calls have to end after SIGTERM")
    context_ttl_s: float = _setting("CONTEXT_TTL_S", _seconds, "300", "seconds until a call without media expires")
    max_waiting: int = _setting("MAX_WAITING", _count, "1000", "calls that may wait for their media at once")
    max_calls: int = _setting("MAX_CALLS", _count, "1000", "calls that may be up at once")
    idle_s: float = _setting(
        "IDLE_S", _seconds, "3600", "seconds without a sound from the caller after which a call is ended; 0: never"
    )
    lead_ms: float = _setting(
        "WEBSOCKET__LEAD_MS", _milliseconds, "200", "how far ahead Asterisk is sent what it plays, over WebSocket (ms)"
    )
    transfer_allow: tuple[str, ...] = _setting(
        "TRANSFER__ALLOW", _list, "", "dial strings that calls may be transferred to, as patterns: PJSIP/2??"
    )
    outbound_context: str = _setting(
        "OUTBOUND__CONTEXT", _word, "rapida-outbound", "dialplan context that answered outbound calls go to"
    )
    outbound_calls: int = _setting(
        "OUTBOUND__CALLS", _count, "100", "outbound calls that may be under way at once, for each credential"
    )
    outbound_rate: float = _setting(
        "OUTBOUND__RATE", _rate, "10", "outbound calls that are placed a second at most, for each credential"
    )
    outbound_queue: int = _setting(
        "OUTBOUND__QUEUE", _count, "100", "outbound calls that may wait for their turn, for each credential"
    )
    outbound_wait_s: float = _setting(
        "OUTBOUND__WAIT_S", _seconds, "60", "seconds that an outbound call waits for its turn; then it has failed"
    )
    outbound_answer_s: float = _setting(
        "OUTBOUND__ANSWER_S", _seconds, "60", "seconds that an outbound call rings; then it has failed"
    )
    outbound_longest_s: float = _setting(
        "OUTBOUND__LONGEST_S", _seconds, "3600", "seconds after which an answered outbound call is hung up; 0: never"
    )
    ari_app: str = _setting(
        "ARI__APP", _word, "rapida-media", "name of our Stasis application; each server at one Asterisk needs its own"
    )
    ari_timeout_s: float = _setting(
        "ARI__TIMEOUT_S", _seconds, "10", "seconds after which a request to Asterisk's REST interface is given up"
    )
    status_webhook_url: str = _setting(
        "STATUS_WEBHOOK__URL", _url, "", "http(s) address that each change of an outbound call's status is POSTed to"
    )
    status_webhook_secret: str = _setting(
        "STATUS_WEBHOOK__SECRET", _text, "", "secret that those POSTs are signed with (HMAC-SHA256)", True
    )
    tls_ca_file: str = _setting(
        "TLS__CA_FILE",
        _text,
        "",
        "PEM file of the authorities that servers called by this one are verified against"
        " (ARI, the webhook, the bridge), in the place of the public ones",
    )
    vault_master_key: str = _setting("VAULT__MASTER_KEY", _text, "", "the vault's master key", True)
    vault_master_key_file: str = _setting(
        "VAULT__MASTER_KEY_FILE",
        _text,
        "",
        "file of the vault's master key [default: vault-key in the state directory]",
    )
    upstream_url: str = _setting(
        "UPSTREAM__URL", _url, "", "http(s) address of the server that the assistant 'bridge' carries calls on to"
    )
    upstream_api_key: str = _setting("UPSTREAM__API_KEY", _text, "", "API key that that server knows", True)
    upstream_assistant_id: str = _setting(
        "UPSTREAM__ASSISTANT_ID", _text, "", "the assistant's id there [default: the one that was dialled here]"
    )
    upstream_format: str = _setting(
        "UPSTREAM__FORMAT", _format, "ulaw", "audio on the WebSocket to that server: ulaw, alaw, slin or slin16"
    )
    upstream_control: str = _setting(
        "UPSTREAM__CONTROL", _control, "plain", "how control messages are written there: plain or json"
    )
    upstream_timeout_s: float = _setting(
        "UPSTREAM__TIMEOUT_S", _seconds, "2", "seconds for each: to connect there, to be answered, to read the answer"
    )
    upstream_fallback: str = _setting(
        "UPSTREAM__FALLBACK",
        _text,
        "",
        "when that server fails: the assistant that takes over, as play:sorry.wav, or next:DIALSTRING for a transfer;"
        " without one the call goes back to the dialplan",
    )
    metrics_public: bool = _setting("METRICS__PUBLIC", _truth, "false", "true: /metrics needs no API key")
    log_format: str = _setting("LOG__FORMAT", _log_format, "text", "text, or json: one object a line")
    keep_s: float = _setting("KEEP_S", _seconds, "604800", "seconds that the records of ended calls are kept")

    @classmethod
    def from_mapping(cls, *sources: Mapping[str, str]) -> Settings:
        """Make the settings from words by their environment names; an earlier source wins. Empty words do not count.

        :raises SettingsError: a word that can't be used; the text names the setting and is one sentence.
        """
        values: dict[str, Any] = {}
        for setting in all_settings():
            word = next((source[setting.env] for source in sources if source.get(setting.env)), None)
            if word is None:
                continue
            try:
                values[setting.attribute] = setting.parse(word)
            except ValueError as error:
                # A URL may have a password in it.
                shown = "" if setting.secret or "@" in word else f" {word!r}"
                raise SettingsError(f"{setting.env} (--{setting.option}){shown} can't be used: {error}") from None
        settings = cls(**values)
        settings._check()
        return settings

    @property
    def vault_key_settings(self) -> dict[str, str]:
        """What says where the vault's master key is, by the names that it has in the environment."""
        return {"VAULT__MASTER_KEY": self.vault_master_key, "VAULT__MASTER_KEY_FILE": self.vault_master_key_file}

    @property
    def secrets(self) -> tuple[str, ...]:
        """All words that nobody may see, in a log for instance."""
        words: list[str] = [urlsplit(self.store_url).password or ""]
        for setting in all_settings():
            if setting.secret:
                value = getattr(self, setting.attribute)
                words.extend([value] if isinstance(value, str) else value)
        return tuple(word for word in words if word)

    def public_host(self, listening_on: str) -> str:
        """The name or address by which the dialplan reaches a port that listens on this address."""
        host = self.public_assistant_host or listening_on
        if host in ("", "0.0.0.0", "::"):
            return "127.0.0.1"
        return bracketed(host)

    def _check(self) -> None:
        for key in self.api_keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise SettingsError("RAPIDA_API_KEY can't be used: a key has 8 or more printable characters, no spaces")
        if self.status_webhook_url and len(self.status_webhook_secret) < 16:
            raise SettingsError(
                "STATUS_WEBHOOK__URL needs STATUS_WEBHOOK__SECRET: 16 or more characters, known to the receiver too"
            )
        if not 0.1 <= self.audiosocket_uuid_s <= 60:
            raise SettingsError("AUDIOSOCKET__UUID_S can't be used: it is a number of seconds from 0.1 to 60")
        if not 1 <= self.http_request_s <= 600:
            raise SettingsError("HTTP__REQUEST_S can't be used: it is a number of seconds from 1 to 600")
        if self.workers > 1 and self.store_url == "memory:":
            raise SettingsError("STORE__URL can't be memory: with several workers, which share the store")
        if not 0.1 <= self.upstream_timeout_s <= 5:
            raise SettingsError("UPSTREAM__TIMEOUT_S can't be used: it is a number of seconds from 0.1 to 5")
        if not 1 <= self.outbound_answer_s <= 600:
            raise SettingsError("OUTBOUND__ANSWER_S can't be used: calls ring for 1 to 600 seconds")
        if not 0.1 <= self.ari_timeout_s <= 120:
            raise SettingsError("ARI__TIMEOUT_S can't be used: it is a number of seconds from 0.1 to 120")


def all_settings() -> list[SettingInfo]:
    """All settings, in the order in which help shows them."""
    return [
        SettingInfo(
            attribute=item.name,
            env=item.metadata["env"],
            parse=item.metadata["parse"],
            default=item.metadata["default"],
            help=item.metadata["help"],
            secret=item.metadata["secret"],
        )
        for item in fields(Settings)
    ]


def unknown_names(names: Iterable[str]) -> list[str]:
    """A sentence for each name that is no setting."""
    known = [setting.env for setting in all_settings()]
    found = []
    for name in names:
        if name not in known:
            near = get_close_matches(name.upper(), known, 1, 0.75)
            found.append(f"{name} is no setting" + (f": is it {near[0]}?" if near else ""))
    return found


def read_env_file(path: str) -> dict[str, str]:
    """The words of an env file: a ``NAME=value`` a line, ``#`` comments, shell quotes, ``export`` allowed.

    :raises SettingsError: it can't be read, or a line is none of these.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the env file {path} can't be read: {error}") from None
    words: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip().removeprefix("export ").lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.strip().isidentifier():
            raise SettingsError(f"the env file {path}, line {number}: expected NAME=value")
        words[name.strip()] = _unquoted(value, f"the env file {path}, line {number}")
    return words


def _unquoted(value: str, where: str) -> str:
    """A value without its quotes, and without the comment behind it."""
    stripped = value.strip()
    if stripped[:1] not in ("'", '"'):
        return re.split(r"\s#", value, maxsplit=1)[0].strip()
    inside, closed, behind = stripped[1:].partition(stripped[0])
    if not closed:
        raise SettingsError(f"{where}: a quote is not closed")
    if behind and not re.match(r"\s+#", behind):
        raise SettingsError(f"{where}: something stands behind the closing quote")
    return inside
