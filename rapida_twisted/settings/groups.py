"""The groups of settings. Each part of the server gets the group that concerns it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from rapida_twisted.errors import SettingsError
from rapida_twisted.net.addresses import bracketed
from rapida_twisted.settings.parsers import (
    API_KEYS,
    BOOLEAN,
    COUNT,
    DIRECTORY,
    HOST,
    NETWORKS,
    PORT,
    SECONDS,
    TEXT,
    TEXT_LIST,
    URL,
    WORD,
    WORKERS,
    choice,
    number,
    seconds,
)  # fmt: skip
from rapida_twisted.settings.setting import Group, setting

_BYTES = number(int, 1024, 16 * 1024 * 1024, "a size is a number of bytes from 1024 to 16777216")
_PER_SECOND = number(float, 1, 100_000, "it is a number a second from 1 to 100000")
_CALL_RATE = number(float, 0.01, 1000, "a rate is a number from 0.01 to 1000")
_KEEP_S = number(float, 0, 3_153_600_000, "a time is a number of seconds, not negative and at most a century")
_GB = number(float, 0, 1_000_000, "a size is a number of gigabytes from 0 to 1000000")
_LEAD_MS = number(float, 20, 10_000, "a lead is a number of milliseconds from 20 to 10000")

SAMPLE_KEYS = frozenset(("put-a-long-random-word-here", "rpd-xxx-your-api-key"))
"""Keys that stand in the documentation."""


def default_state_dir() -> Path:
    """The default state directory: systemd's ``STATE_DIRECTORY``, else below the user's XDG state directory."""
    from_systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if from_systemd:
        return Path(from_systemd)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "rapida-media"


def host_for(listening_on: str) -> str:
    """The host, in a URL, by which programs on this machine reach a port that listens on this address."""
    return "127.0.0.1" if listening_on in ("", "0.0.0.0", "::") else bracketed(listening_on)


@dataclass(frozen=True, kw_only=True)
class AudioSocketSettings(Group):
    """The AudioSocket server."""

    host: str = setting("AUDIOSOCKET__HOST", "address that AudioSocket listens on", TEXT, "127.0.0.1")
    port: int = setting("AUDIOSOCKET__PORT", "TCP port of AudioSocket", PORT, "4573")
    endpoint: str = setting(
        "AUDIOSOCKET__ENDPOINT",
        "any Twisted endpoint for AudioSocket instead, such as haproxy:tcp:4573 or ssl:4573:privateKey=...:certKey=...",
    )
    allow: tuple[IPv4Network | IPv6Network, ...] = setting(
        "AUDIOSOCKET__ALLOW",
        "networks whose addresses may use AudioSocket, such as 192.0.2.0/24,2001:db8::/32; empty: all",
        NETWORKS,
    )
    uuid_s: float = setting(
        "AUDIOSOCKET__UUID_S", "seconds within which a connection must send its UUID", seconds(0.1, 60), "5"
    )
    waiting: int = setting(
        "AUDIOSOCKET__WAITING",
        "maximum connections that have not sent their UUID; beyond it the oldest is closed",
        COUNT,
        "1000",
    )


@dataclass(frozen=True, kw_only=True)
class HttpSettings(Group):
    """The HTTP server, which also upgrades to WebSocket."""

    host: str = setting("HTTP__HOST", "address that HTTP (registration) listens on", TEXT, "127.0.0.1")
    port: int = setting("HTTP__PORT", "TCP port of HTTP", PORT, "8080")
    endpoint: str = setting("HTTP__ENDPOINT", "any Twisted endpoint for HTTP instead")
    https_endpoint: str = setting(
        "HTTPS",
        "a Twisted endpoint with TLS for HTTP and WebSocket, beside the one without, such as"
        " ssl:443:privateKey=key.pem:certKey=chain.pem",
    )
    body_bytes: int = setting("HTTP__BODY_BYTES", "maximum size of a request's body (bytes)", _BYTES, "65536")
    request_s: float = setting(
        "HTTP__REQUEST_S", "seconds within which a connection must complete its next request", seconds(1, 600), "30"
    )
    first_request_s: float = setting(
        "HTTP__FIRST_REQUEST_S", "seconds within which a new connection must complete a request", seconds(1, 600), "5"
    )
    metrics_public: bool = setting("METRICS__PUBLIC", "true: /metrics needs no API key", BOOLEAN, "false")


@dataclass(frozen=True, kw_only=True)
class AdminSettings(Group):
    """The port for operators."""

    host: str = setting("ADMIN__HOST", "address that the port for operators listens on", TEXT, "127.0.0.1")
    port: int = setting("ADMIN__PORT", "TCP port for operators: metrics, health, calls; 0: none", PORT, "8081")


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings(Group):
    """Limits of connections, for each port."""

    proxy_allow: tuple[IPv4Network | IPv6Network, ...] = setting(
        "PROXY__ALLOW", "networks whose PROXY headers are trusted; endpoints haproxy:tcp:... need it", NETWORKS
    )
    max: int = setting("CONNECTIONS__MAX", "maximum connections, for each port", COUNT, "5000")
    of_address: int = setting(
        "CONNECTIONS__OF_ADDRESS", "maximum connections from one address, for each port", COUNT, "2500"
    )
    reserved: int = setting(
        "CONNECTIONS__RESERVED",
        "how many of the connections of each port are kept free for CONNECTIONS__RESERVED_FOR",
        number(int, 0, 100_000, "a number of connections goes from 0 to 100000"),
        "0",
    )
    reserved_for: tuple[IPv4Network | IPv6Network, ...] = setting(
        "CONNECTIONS__RESERVED_FOR", "networks that those are kept for, such as the Asterisks' 192.0.2.0/28", NETWORKS
    )
    rate: float = setting("CONNECTIONS__RATE", "maximum new connections per second, for each port", _PER_SECOND, "4000")
    address_rate: float = setting(
        "CONNECTIONS__ADDRESS_RATE",
        "maximum new connections per second from one address, for each port",
        _PER_SECOND,
        "2000",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reserved >= self.max:
            raise SettingsError("CONNECTIONS__RESERVED must be less than CONNECTIONS__MAX")


@dataclass(frozen=True, kw_only=True)
class PublicSettings(Group):
    """How Asterisk reaches this server."""

    host: str = setting("PUBLIC_ASSISTANT_HOST", "name or address by which Asterisk reaches this server", HOST)
    audiosocket_port: int = setting(
        "PUBLIC_AUDIOSOCKET_PORT",
        "port by which Asterisk reaches AudioSocket; 0: the one that it listens on",
        PORT,
        "0",
    )

    def host_for(self, listening_on: str) -> str:
        """The host by which a dialplan reaches a port that listens on this address."""
        return host_for(self.host or listening_on)


@dataclass(frozen=True, kw_only=True)
class KeySettings(Group):
    """The API keys."""

    api_keys: tuple[str, ...] = setting(
        "RAPIDA_API_KEY",
        "API key, or several with commas; without one, the key in the state directory",
        API_KEYS,
        secret=True,
    )
    file: str = setting("KEYS_FILE", "file of API keys with scopes [default: keys.json in the state directory]")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in SAMPLE_KEYS.intersection(self.api_keys):
            raise SettingsError(
                f"RAPIDA_API_KEY {key} is a sample of the documentation, which everyone can read: make a key of your"
                " own, for instance with 'openssl rand -hex 24'"
            )


@dataclass(frozen=True, kw_only=True)
class StoreSettings(Group):
    """Where calls are kept, and how long."""

    url: str = setting(
        "STORE__URL",
        "where calls are kept: sqlite: (in the state directory), sqlite:/path, memory:, or redis://...,"
        " rediss://..., redis+sentinel://...",
        TEXT,
        "sqlite:",
        hidden=True,
    )
    keep_s: float = setting("KEEP_S", "seconds that the records of ended calls are kept", SECONDS, "604800")


@dataclass(frozen=True, kw_only=True)
class AssistantSettings(Group):
    """Which assistants answer, and where they may transfer calls to."""

    rules: tuple[str, ...] = setting(
        "ASSISTANT",
        "which assistant answers which id: ID=NAME, ID=NAME:ARGUMENT or ID=module:Class",
        TEXT_LIST,
        "*=greeter",
    )
    transfer_allow: tuple[str, ...] = setting(
        "TRANSFER__ALLOW", "dial strings that calls may be transferred to, as patterns such as PJSIP/2??", TEXT_LIST
    )


@dataclass(frozen=True, kw_only=True)
class RecordingSettings(Group):
    """The recordings of the assistant ``record``."""

    dir: str = setting("RECORDINGS__DIR", "directory of recordings [default: recordings in the state directory]")
    keep_s: float = setting(
        "RECORDINGS__KEEP_S", "seconds after which a recording is deleted; 0: never", _KEEP_S, "0"
    )
    max_gb: float = setting(
        "RECORDINGS__MAX_GB", "maximum size (GB) of all recordings; beyond it the oldest are deleted; 0: none", _GB, "0"
    )
    reserve_gb: float = setting(
        "RECORDINGS__RESERVE_GB", "free space (GB) of the disk below which recordings stop, and calls go on", _GB, "1"
    )


@dataclass(frozen=True, kw_only=True)
class MediaSettings(Group):
    """The media of calls."""

    polling: str = setting(
        "MEDIA__POLLING",
        "what reads the media connections: events (the reactor, at once), polling (the media clock, cheaper for many"
        " calls), or auto, by the load",
        choice("auto", "events", "polling"),
        "auto",
    )
    lead_ms: float = setting(
        "WEBSOCKET__LEAD_MS", "how far ahead of playback audio is sent over WebSocket (ms)", _LEAD_MS, "200"
    )
    message_bytes: int = setting(
        "WEBSOCKET__MESSAGE_BYTES", "maximum size of a WebSocket message (bytes)", _BYTES, "65536"
    )
    idle_s: float = setting(
        "IDLE_S", "seconds without audio from the caller after which a call is ended; 0: never", SECONDS, "3600"
    )


@dataclass(frozen=True, kw_only=True)
class LimitSettings(Group):
    """Limits of calls."""

    context_ttl_s: float = setting(
        "CONTEXT_TTL_S", "seconds until a registered call without media expires", SECONDS, "300"
    )
    max_waiting: int = setting("MAX_WAITING", "maximum calls that wait for their media", COUNT, "1000")
    same_network: bool = setting(
        "CLAIM__SAME_NETWORK",
        "true: a call's media must come from the network (IPv4 /24, IPv6 /64) that registered it",
        BOOLEAN,
        "false",
    )
    max_calls: int = setting("MAX_CALLS", "maximum calls that are up", COUNT, "1000")


@dataclass(frozen=True, kw_only=True)
class ProcessSettings(Group):
    """The process itself."""

    state_dir: Path = setting(  # noqa: RUF009
        "STATE_DIR",
        "directory for calls, the API key and recordings [default: ~/.local/state/rapida-media]",
        DIRECTORY,
        factory=default_state_dir,
    )
    workers: int = setting(
        "WORKERS", "processes that share the calls of this machine, from 1 to 64; 0: one for each core", WORKERS, "1"
    )
    hung_s: float = setting(
        "WORKERS__HUNG_S",
        "seconds after which a worker that does not respond is killed and replaced",
        seconds(2, 86_400),
        "30",
    )
    drain_s: float = setting("DRAIN_S", "seconds that calls have to end after SIGTERM", SECONDS, "20")
    log_format: str = setting("LOG__FORMAT", "text, or json: one object a line", choice("text", "json"), "text")


@dataclass(frozen=True, kw_only=True)
class OutboundSettings(Group):
    """Outbound calls."""

    context: str = setting(
        "OUTBOUND__CONTEXT", "dialplan context that answered outbound calls go to", WORD, "rapida-outbound"
    )
    calls: int = setting("OUTBOUND__CALLS", "maximum outbound calls in progress, for each credential", COUNT, "100")
    rate: float = setting(
        "OUTBOUND__RATE", "maximum outbound calls placed per second, for each credential", _CALL_RATE, "10"
    )
    queue: int = setting("OUTBOUND__QUEUE", "maximum outbound calls queued, for each credential", COUNT, "100")
    wait_s: float = setting(
        "OUTBOUND__WAIT_S", "seconds that an outbound call may be queued before it fails", SECONDS, "60"
    )
    answer_s: float = setting(
        "OUTBOUND__ANSWER_S", "seconds that an outbound call may ring before it fails", seconds(1, 600), "60"
    )
    longest_s: float = setting(
        "OUTBOUND__LONGEST_S", "seconds after which an answered outbound call is hung up; 0: never", SECONDS, "3600"
    )


@dataclass(frozen=True, kw_only=True)
class AriSettings(Group):
    """Asterisk's REST interface."""

    app: str = setting(
        "ARI__APP", "name of our Stasis application, unique among the servers of an Asterisk", WORD, "rapida-media"
    )
    timeout_s: float = setting(
        "ARI__TIMEOUT_S", "seconds after which a request to Asterisk's REST interface fails", seconds(0.1, 120), "10"
    )


@dataclass(frozen=True, kw_only=True)
class WebhookSettings(Group):
    """The webhook that reports outbound calls."""

    url: str = setting("STATUS_WEBHOOK__URL", "http(s) address to which each status of an outbound call is POSTed", URL)
    secret: str = setting("STATUS_WEBHOOK__SECRET", "secret that signs those POSTs (HMAC-SHA256)", secret=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.url and len(self.secret) < 16:
            raise SettingsError(
                "STATUS_WEBHOOK__URL needs STATUS_WEBHOOK__SECRET: 16 or more characters, known to the receiver too"
            )


@dataclass(frozen=True, kw_only=True)
class TlsSettings(Group):
    """How servers that this one calls are verified."""

    ca_file: str = setting(
        "TLS__CA_FILE",
        "PEM file of the authorities that verify the servers called by this one"
        " (ARI, the webhook, the bridge), in place of the public ones",
    )


@dataclass(frozen=True, kw_only=True)
class VaultSettings(Group):
    """Where the vault's master key is."""

    master_key: str = setting("VAULT__MASTER_KEY", "the vault's master key", secret=True)
    master_key_file: str = setting(
        "VAULT__MASTER_KEY_FILE", "file of the vault's master key [default: vault-key in the state directory]"
    )

    @property
    def environ(self) -> dict[str, str]:
        """These settings by their environment names."""
        return {"VAULT__MASTER_KEY": self.master_key, "VAULT__MASTER_KEY_FILE": self.master_key_file}


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings(Group):
    """The server that the assistant ``bridge`` connects calls to."""

    url: str = setting(
        "UPSTREAM__URL", "http(s) address of the server that the assistant 'bridge' connects calls to", URL
    )
    api_key: str = setting("UPSTREAM__API_KEY", "API key for that server", secret=True)
    assistant_id: str = setting(
        "UPSTREAM__ASSISTANT_ID", "the assistant's id there [default: the id that was dialled here]"
    )
    format: str = setting(
        "UPSTREAM__FORMAT",
        "audio on the WebSocket to that server: ulaw, alaw, slin or slin16",
        choice("ulaw", "alaw", "slin", "slin16"),
        "ulaw",
    )
    control: str = setting(
        "UPSTREAM__CONTROL",
        "form of the control messages to that server: plain or json",
        choice("plain", "json"),
        "plain",
    )
    timeout_s: float = setting(
        "UPSTREAM__TIMEOUT_S",
        "seconds for each step: to connect there, to get an answer, to read it",
        seconds(0.1, 5),
        "2",
    )
    stalled_s: float = setting(
        "UPSTREAM__STALLED_S",
        "seconds that server may answer no ping or read nothing, before its call ends",
        seconds(1, 600),
        "20",
    )
    digits: str = setting(
        "UPSTREAM__DIGITS", "whether that server gets the digits that the caller presses: on or off",
        choice("on", "off"), "on",
    )  # fmt: skip
    fallback: str = setting(
        "UPSTREAM__FALLBACK",
        "when that server fails: the assistant that takes over, as play:sorry.wav, or next:DIALSTRING for a transfer;"
        " without one the call goes back to the dialplan",
    )
