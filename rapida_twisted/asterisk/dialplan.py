"""The dialplan lines that bring an Asterisk's calls to this server, with the values of this very server in them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["DialplanValues", "audiosocket_dialplan"]

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
 same => n,Hangup()
 same => n(error),Playback(an-error-has-occurred)
 same => n,Hangup()
"""  # noqa: E501


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


def audiosocket_dialplan(values: DialplanValues) -> str:
    """The lines of extensions.conf for calls over AudioSocket."""
    return _AUDIOSOCKET.format(
        api_key=quote(values.api_key, safe="<> $/"),
        http_url=values.http_url,
        audiosocket_host=values.audiosocket_host,
        audiosocket_port=values.audiosocket_port,
        assistant_id=values.assistant_id,
    )
