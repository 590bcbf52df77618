"""The credential of an Asterisk's ARI: one entry of the vault, with provider type Asterisk."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rapida_twisted.credentials.masking import keep_out_of_logs
from rapida_twisted.errors import SettingsError

__all__ = ["AriCredential"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TECHNOLOGY = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}")
_PART = re.compile(r"[A-Za-z0-9_+*#.:@-]{1,128}")
_NUMBER = re.compile(r"[A-Za-z0-9_+*#.-]{1,128}")
"""A number to dial over a trunk: it cannot name another trunk."""


@dataclass(frozen=True, kw_only=True)
class AriCredential:
    """An Asterisk's ARI, and the trunk of outbound calls. No repr shows the password.

    :raises SettingsError: a value is not valid; the text is one sentence and holds no secret.
    """

    name: str
    ari_url: str
    """Such as ``http://127.0.0.1:8088``, with or without ``/ari``."""
    ari_user: str
    ari_password: str = field(repr=False)
    endpoint_technology: str = "PJSIP"
    trunk: str = ""
    """The endpoint, peer or trunk of outbound calls; without one, calls are dialled to an endpoint directly."""

    def __post_init__(self) -> None:
        # Also in the form of the Authorization header.
        token = b64encode(f"{self.ari_user}:{self.ari_password}".encode("utf-8", "replace")).decode("ascii")
        keep_out_of_logs(self.ari_password, token)
        if not _NAME.fullmatch(self.name):
            raise SettingsError(
                f"a credential's name must be up to 64 letters, digits, '_', '.' and '-', not {self.name!r}"
            )
        if not _is_ari_url(self.ari_url):
            raise SettingsError(
                f"credential {self.name}: ari_url must be http(s)://host:port, without a password in it"
            )
        if not self.ari_user or not self.ari_password:
            raise SettingsError(f"credential {self.name}: ari_user and ari_password are required")
        # HTTP's basic authentication ends the user's name at the first colon (RFC 7617).
        if ":" in self.ari_user or not self.ari_user.isprintable():
            raise SettingsError(f"credential {self.name}: ari_user may not hold ':' or a control character")
        if not _TECHNOLOGY.fullmatch(self.endpoint_technology):
            raise SettingsError(f"credential {self.name}: endpoint_technology must be a name such as PJSIP")
        if self.trunk and not _PART.fullmatch(self.trunk):
            raise SettingsError(
                f"credential {self.name}: the trunk {self.trunk!r} holds a character that is not allowed"
            )

    def endpoint(self, to: str) -> str:
        """The dial string of a number: ``PJSIP/<to>@<trunk>``, ``TECH/<trunk>/<to>``, or ``TECH/<to>`` without a trunk.

        (``PJSIP/trunk/number``, as on Rapida's page, fails on a real Asterisk: "invalid URI".)

        :raises ValueError: the number holds a character that a dial string does not allow.
        """
        if not (_NUMBER if self.trunk else _PART).fullmatch(to):
            raise ValueError(f"cannot dial {to!r}: it holds a character that is not allowed in a dial string")
        if not self.trunk:
            return f"{self.endpoint_technology}/{to}"
        if self.endpoint_technology.upper() == "PJSIP":
            return f"PJSIP/{to}@{self.trunk}"
        return f"{self.endpoint_technology}/{self.trunk}/{to}"


def _is_ari_url(text: str) -> bool:
    """Whether the text is a server's address without a query, fragment or password."""
    try:
        url = urlsplit(text)
        known = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        return False
    return bool(known) and text.isprintable() and not (url.query or url.fragment or url.username or url.password)
