"""The dialplan lines that bring an Asterisk's calls to this server, with this server's values."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

__all__ = [
    "DialplanValues",
    "audiosocket_dialplan",
    "audiosocket_outbound_dialplan",
    "freepbx_dialplan",
    "stasis_dialplan",
    "websocket_client_conf",
    "websocket_dialplan",
    "websocket_outbound_dialplan",
]

PUBLIC_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Debian's file of the public authorities, which chan_websocket does not use by default."""

_AUDIOSOCKET = """\
; /etc/asterisk/extensions.conf
[globals]
RAPIDA_API_KEY = {api_key}
RAPIDA_URL = {http_url}
RAPIDA_AS_HOST = {audiosocket_host}
RAPIDA_PORT = {audiosocket_port}
ASSISTANT_ID = {assistant_id}

[rapida-inbound]
exten => _X.,1,Answer()
 same => n,Set(FROM=${{URIENCODE(${{CALLERID(num)}})}})
 same => n,Set(CTX=${{CURL(${{RAPIDA_URL}}/v1/talk/asterisk/call/${{ASSISTANT_ID}}?from=${{FROM}}&to=${{EXTEN}}&x-api-key=${{RAPIDA_API_KEY}})}})
 same => n,GotoIf($["${{CTX}}" = ""]?error)
 same => n,AudioSocket(${{CTX}},${{RAPIDA_AS_HOST}}:${{RAPIDA_PORT}})
{transfer} same => n{over},Hangup()
 same => n(error),Playback(an-error-has-occurred)
 same => n,Hangup()
"""  # noqa: E501

_WEBSOCKET = """\
; /etc/asterisk/extensions.conf
[globals]
RAPIDA_API_KEY = {api_key}
RAPIDA_URL = {http_url}
ASSISTANT_ID = {assistant_id}

[rapida-inbound-ws]
exten => _X.,1,Answer()
{own_ca} same => n,Set(FROM=${{URIENCODE(${{CALLERID(num)}})}})
 same => n,Set(CTX=${{CURL(${{RAPIDA_URL}}/v1/talk/asterisk/call/${{ASSISTANT_ID}}?from=${{FROM}}&to=${{EXTEN}}&x-api-key=${{RAPIDA_API_KEY}})}})
 same => n,GotoIf($["${{CTX}}" = ""]?error)
 same => n,Dial(WebSocket/rapida/c(ulaw)v(contextId=${{CTX}},x-api-key=${{RAPIDA_API_KEY}}),,g)
 same => n,GotoIf($["${{DIALSTATUS}}" != "ANSWER"]?error)
{transfer} same => n{over},Hangup()
 same => n(error),Playback(an-error-has-occurred)
 same => n,Hangup()
"""  # noqa: E501

_AUDIOSOCKET_OUTBOUND = """\
[rapida-outbound]
exten => s,1,Set(CTX=${{RAPIDA_CONTEXT_ID}})
 same => n,AudioSocket(${{CTX}},${{RAPIDA_AS_HOST}}:${{RAPIDA_PORT}})
{transfer} same => n{over},Hangup()
"""

_WEBSOCKET_OUTBOUND = """\
[rapida-outbound-ws]
exten => s,1,Set(CTX=${{RAPIDA_CONTEXT_ID}})
{own_ca} same => n,Dial(WebSocket/rapida/c(ulaw)v(contextId=${{CTX}},x-api-key=${{RAPIDA_API_KEY}}),,g)
{transfer} same => n{over},Hangup()
"""

_STASIS = """\
; /etc/asterisk/extensions.conf
[rapida-inbound-stasis]
exten => _X.,1,Answer()
 same => n,Stasis({app},{assistant_id})
 same => n,GotoIf($["${{STASISSTATUS}}" = "FAILED"]?error)
 same => n,GotoIf($["${{RAPIDA_ERROR}}" != ""]?error)
{transfer} same => n{over},Hangup()
 same => n(error),Playback(an-error-has-occurred)
 same => n,Hangup()
"""

_STASIS_TRANSFER = """\
 same => n,GotoIf($["${RAPIDA_NEXT}" = ""]?over)
 same => n,Dial(${RAPIDA_NEXT})
"""

_TRANSFER = """\
 same => n,Set(NEXT=${CURL(${RAPIDA_URL}/v1/talk/asterisk/ctx/${CTX}/next?x-api-key=${RAPIDA_API_KEY})})
 same => n,GotoIf($["${NEXT}" = ""]?over)
 same => n,Dial(${NEXT})
"""

_OWN_CA = " same => n,Set(CURLOPT(ssl_cainfo)={ca_file})\n"

# The number that an inbound route matched is in FROM_DID; a call from an extension has only the dialled one.
_FREEPBX = (
    ("/etc/asterisk/extensions.conf", "/etc/asterisk/extensions_custom.conf"),
    (
        "exten => _X.,1,Answer()\n",
        "exten => s,1,Answer()\n"
        ' same => n,Set(TO=${URIENCODE(${IF($["${FROM_DID}" = ""]?${CALLERID(dnid)}:${FROM_DID})})})\n',
    ),
    ("&to=${EXTEN}&", "&to=${TO}&"),
)

_CLIENT = """\
; /etc/asterisk/websocket_client.conf
[rapida]
type = websocket_client
connection_type = per_call_config
uri = {websocket_url}/v1/talk/asterisk/ctx
protocols = media
reconnect_attempts = 1
"""

_CLIENT_TLS = """\
tls_enabled = yes
ca_list_file = {ca_file}
"""


@dataclass(frozen=True)
class DialplanValues:
    """The values of a server in its dialplan.

    :param http_url: the address of the HTTP interface for Asterisk, without a trailing slash.
    :param audiosocket_host: the AudioSocket host for Asterisk.
    """

    api_key: str
    http_url: str
    audiosocket_host: str
    audiosocket_port: int
    assistant_id: str = "123456789"

    def fill(self, template: str, **more: str) -> str:
        values = {**vars(self), "api_key": quote(self.api_key, safe="<> $/")}
        return template.format(**values, **more)


def audiosocket_dialplan(values: DialplanValues, *, transfer: bool = False) -> str:
    """The lines of extensions.conf for inbound calls over AudioSocket.

    :param transfer: include the lines that request, after the media, where the call goes next.
    """
    return values.fill(_AUDIOSOCKET, **_transfer_lines(transfer))


def audiosocket_outbound_dialplan(*, transfer: bool = False) -> str:
    """The lines for outbound calls, which use the globals of :func:`audiosocket_dialplan` above them."""
    return _AUDIOSOCKET_OUTBOUND.format(**_transfer_lines(transfer))


def websocket_outbound_dialplan(ca_file: str = "", *, transfer: bool = False) -> str:
    """The lines for outbound calls, which use the globals of :func:`websocket_dialplan` above them.

    :param ca_file: only ``transfer`` needs it, for its request.
    """
    return _WEBSOCKET_OUTBOUND.format(**_transfer_lines(transfer), own_ca=_own_ca(ca_file if transfer else ""))


def websocket_dialplan(values: DialplanValues, ca_file: str = "", *, transfer: bool = False) -> str:
    """The lines of extensions.conf for inbound calls over WebSocket; they need :func:`websocket_client_conf`.

    :param ca_file: on Asterisk's machine, the certificate of the private CA that signed the server's.
    :param transfer: see :func:`audiosocket_dialplan`.
    """
    return values.fill(_WEBSOCKET, **_transfer_lines(transfer), own_ca=_own_ca(ca_file))


def freepbx_dialplan(text: str) -> str:
    """A dialplan of this module for FreePBX and its relatives, which send calls to the extension ``s``."""
    for printed, wanted in _FREEPBX:
        text = text.replace(printed, wanted)
    return text


def stasis_dialplan(app: str, assistant_id: str, *, transfer: bool = False) -> str:
    """The lines of extensions.conf that send inbound calls to our Stasis application; outbound ones need none.

    :param app: the application's name, see :func:`~rapida_twisted.asterisk.outbound.trunk.app_name`.
    :param transfer: include the lines that dial, after the media, where the call goes next.
    """
    return _STASIS.format(app=app, assistant_id=assistant_id, **_transfer_lines(transfer, _STASIS_TRANSFER))


def websocket_client_conf(values: DialplanValues, ca_file: str = "") -> str:
    """The lines of websocket_client.conf, with TLS if the HTTP address begins with https.

    :param ca_file: see :func:`websocket_dialplan`; without one, the public authorities.
    """
    text = _CLIENT.format(websocket_url=values.http_url.replace("http", "ws", 1))
    if values.http_url.startswith("https:"):
        text += _CLIENT_TLS.format(ca_file=ca_file or PUBLIC_CA_FILE)
    return text


def _transfer_lines(transfer: bool, lines: str = _TRANSFER) -> dict[str, str]:
    return {"transfer": lines if transfer else "", "over": "(over)" if transfer else ""}


def _own_ca(ca_file: str) -> str:
    return _OWN_CA.format(ca_file=ca_file) if ca_file else ""
