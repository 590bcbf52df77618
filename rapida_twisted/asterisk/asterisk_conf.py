"""Asterisk's configuration beside the dialplan: its modules, and its REST interface (ARI) for outbound calls."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from rapida_twisted.errors import SettingsError
from rapida_twisted.net.addresses import bracketed

__all__ = [
    "AriValues", "ari_conf", "audiosocket_modules", "http_conf", "modules_conf", "stasis_modules", "websocket_modules",
]  # fmt: skip

_DIALPLAN = ("pbx_config", "app_dial", "app_playback")
_REGISTRATION = (*_DIALPLAN, "res_curl", "func_curl", "func_callerid", "func_uri")
# Between phones, prompts and this server. Which of them a call needs depends on the phone; the bridge is for Dial().
_AUDIO = (
    "res_timing_timerfd", "bridge_simple", "codec_ulaw", "codec_alaw", "codec_gsm", "codec_resample", "format_gsm",
    "format_pcm", "format_wav",
)  # fmt: skip
# Asterisk exits at start with the third without the first; ARI needs the third since Asterisk 22.
_WEBSOCKET = ("res_sorcery_config", "res_http_websocket", "res_websocket_client")
_ARI = (
    *_WEBSOCKET, "res_stasis", "res_stasis_answer", "res_stasis_playback", "res_stasis_recording", "res_stasis_snoop",
    "app_stasis", "res_ari", "res_ari_model", "res_ari_applications", "res_ari_asterisk", "res_ari_channels",
    "res_ari_events",
)  # fmt: skip

_USER = re.compile(r"[A-Za-z0-9_.@+-]{1,64}")

_HTTP = """\
; /etc/asterisk/http.conf
[general]
enabled = yes
bindaddr = {address}
bindport = {port}
"""

_HTTPS = """\
; /etc/asterisk/http.conf
[general]
enabled = yes
bindaddr = 127.0.0.1
tlsenable = yes
tlsbindaddr = {address}:{port}
tlscertfile = /etc/asterisk/keys/asterisk.crt ; <yours>
tlsprivatekey = /etc/asterisk/keys/asterisk.key ; <yours>
"""

_ARI_USER = """\
; /etc/asterisk/ari.conf
[general]
enabled = yes

[{user}]
type = user
read_only = no
password = {password}
"""

_MODULES = """\
; /etc/asterisk/modules.conf, below its line [modules]: those that are not loaded already
; (asterisk -rx "module show like {example}")
{lines}
"""


@dataclass(frozen=True, kw_only=True)
class AriValues:
    """The ARI values of an Asterisk's configuration.

    :param password: a placeholder: the configuration is printed.
    """

    url: str = "http://127.0.0.1:8088"
    """ARI's address for this server."""
    user: str = "rapida"
    password: str = "<a long password>"


def audiosocket_modules() -> tuple[str, ...]:
    return (*_REGISTRATION, "res_audiosocket", "app_audiosocket")


def websocket_modules() -> tuple[str, ...]:
    return (*_REGISTRATION, "res_timing_timerfd", "bridge_simple", "codec_ulaw", *_WEBSOCKET, "chan_websocket")


def stasis_modules() -> tuple[str, ...]:
    return (*_DIALPLAN, "bridge_simple", "res_ari_bridges", "res_audiosocket", "chan_audiosocket")


def modules_conf(modules: tuple[str, ...]) -> str:
    """The lines of modules.conf that load some modules, ARI's, and those for audio."""
    lines = "\n".join(f"load = {module}.so" for module in dict.fromkeys((*modules, *_AUDIO, *_ARI)))
    return _MODULES.format(example=modules[-1], lines=lines)


def http_conf(values: AriValues) -> str:
    """The lines of http.conf that open ARI's port: at the URL's address, or at all addresses if the URL has a name.

    :raises SettingsError: the URL's port is not valid.
    """
    url = urlsplit(values.url)
    try:
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        raise SettingsError(f"{values.url!r} is not a valid address of ARI") from None
    text = _HTTPS if url.scheme == "https" else _HTTP
    return text.format(address=_bind_address(url.hostname or ""), port=port)


def ari_conf(values: AriValues) -> str:
    """The lines of ari.conf for this server's ARI user.

    :raises SettingsError: the user's name is not valid for a section.
    """
    if not _USER.fullmatch(values.user):
        raise SettingsError(f"the ARI user {values.user!r} is not a valid section name of ari.conf")
    return _ARI_USER.format(user=values.user, password=values.password)


def _bind_address(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "0.0.0.0"
    return bracketed(str(address))
