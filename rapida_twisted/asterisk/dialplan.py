"""The dialplan lines that bring an Asterisk's calls to this server, with the values of this very server in them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

__all__ = [
    "DialplanValues",
    "audiosocket_dialplan",
    "audiosocket_outbound_dialplan",
    "stasis_dialplan",
    "websocket_client_conf",
    "websocket_dialplan",
    "websocket_outbound_dialplan",
]

PUBLIC_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian and others keep the certificates of the public authorities; chan_websocket does not look by itself."""

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
    """What a dialplan must know of a server.

    :param http_url: the address of the HTTP interface as Asterisk reaches it, without a slash at its end.
    :param audiosocket_host: likewise of AudioSocket.
    """

    api_key: str
    http_url: str
    audiosocket_host: str
    audiosocket_port: int
    assistant_id: str = "123456789"


def audiosocket_dialplan(values: DialplanValues, *, transfer: bool = False) -> str:
    """The lines of extensions.conf for calls that come in over AudioSocket.

    :param transfer: with those that ask, when the media is over, where the call goes next.
    """
    return _AUDIOSOCKET.format(
        api_key=_api_key(values),
        http_url=values.http_url,
        audiosocket_host=values.audiosocket_host,
        audiosocket_port=values.audiosocket_port,
        assistant_id=values.assistant_id,
        transfer=_TRANSFER if transfer else "",
        over="(over)" if transfer else "",
    )


def audiosocket_outbound_dialplan(*, transfer: bool = False) -> str:
    """The lines below those of :func:`audiosocket_dialplan`, whose globals they use, for calls that we place."""
    return _AUDIOSOCKET_OUTBOUND.format(transfer=_TRANSFER if transfer else "", over="(over)" if transfer else "")


def websocket_outbound_dialplan(ca_file: str = "", *, transfer: bool = False) -> str:
    """The lines below those of :func:`websocket_dialplan`, whose globals they use, for calls that we place.

    :param ca_file: needed with ``transfer`` alone, for its request.
    """
    return _WEBSOCKET_OUTBOUND.format(
        transfer=_TRANSFER if transfer else "",
        over="(over)" if transfer else "",
        own_ca=_OWN_CA.format(ca_file=ca_file) if ca_file and transfer else "",
    )


def websocket_dialplan(values: DialplanValues, ca_file: str = "", *, transfer: bool = False) -> str:
    """The lines of extensions.conf for calls that come in over WebSocket; they need :func:`websocket_client_conf`.

    :param ca_file: on Asterisk's machine, the certificate of the authority of one's own that signed the server's.
    :param transfer: see :func:`audiosocket_dialplan`.
    """
    return _WEBSOCKET.format(
        api_key=_api_key(values),
        http_url=values.http_url,
        assistant_id=values.assistant_id,
        transfer=_TRANSFER if transfer else "",
        over="(over)" if transfer else "",
        own_ca=_OWN_CA.format(ca_file=ca_file) if ca_file else "",
    )


def stasis_dialplan(app: str, assistant_id: str, *, transfer: bool = False) -> str:
    """The lines of extensions.conf that give inbound calls to our Stasis application; outbound ones need none.

    :param app: the application's name, see :func:`~rapida_twisted.asterisk.outbound.trunk.app_name`.
    :param transfer: with those that dial where the call goes next, when the media is over.
    """
    return _STASIS.format(
        app=app,
        assistant_id=assistant_id,
        transfer=_STASIS_TRANSFER if transfer else "",
        over="(over)" if transfer else "",
    )


def websocket_client_conf(values: DialplanValues, ca_file: str = "") -> str:
    """The lines of websocket_client.conf; those for TLS too when the HTTP address begins with https.

    :param ca_file: see :func:`websocket_dialplan`; without one, the public authorities.
    """
    text = _CLIENT.format(websocket_url=values.http_url.replace("http", "ws", 1))
    if values.http_url.startswith("https:"):
        text += _CLIENT_TLS.format(ca_file=ca_file or PUBLIC_CA_FILE)
    return text


def _api_key(values: DialplanValues) -> str:
    return quote(values.api_key, safe="<> $/")
