"""What is needed to speak to an Asterisk's ARI: one entry of the vault, provider type Asterisk."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rapida_twisted.errors import SettingsError

__all__ = ["AriCredential"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TECHNOLOGY = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}")
_PART = re.compile(r"[A-Za-z0-9_+*#.:@-]{1,128}")


@dataclass(frozen=True, kw_only=True)
class AriCredential:
    """An Asterisk's ARI and the trunk that calls leave by. The password is in no repr.

    :raises SettingsError: a value that can't be used; the text is one sentence and holds no secret.
    """

    name: str
    """What the credential is called in the vault."""
    ari_url: str
    """Such as ``http://127.0.0.1:8088``; ``/ari`` is added."""
    ari_user: str
    ari_password: str = field(repr=False)
    endpoint_technology: str = "PJSIP"
    trunk: str = ""
    """The endpoint, peer or trunk that calls leave by; without one, what is dialled is an endpoint itself."""

    def __post_init__(self) -> None:
        url = urlsplit(self.ari_url)
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"a credential's name is up to 64 letters, digits, '_', '.' and '-', not {self.name!r}")
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.username or url.password:
            raise SettingsError(
                f"credential {self.name}: ari_url must be http(s)://host:port, without a password in it"
            )
        if not self.ari_user or not self.ari_password:
            raise SettingsError(f"credential {self.name}: ari_user and ari_password are needed")
        if not _TECHNOLOGY.fullmatch(self.endpoint_technology):
            raise SettingsError(f"credential {self.name}: endpoint_technology is a word such as PJSIP")
        if self.trunk and not _PART.fullmatch(self.trunk):
            raise SettingsError(
                f"credential {self.name}: the trunk {self.trunk!r} holds a character that has no place there"
            )

    def endpoint(self, to: str) -> str:
        """The dial string of a number: ``PJSIP/<to>@<trunk>``, ``TECH/<trunk>/<to>``, or ``TECH/<to>`` without a trunk.

        (``PJSIP/trunk/number``, as on Rapida's page, fails on a real Asterisk: "invalid URI".)

        :raises ValueError: the number holds a character that has no place in a dial string.
        """
        if not _PART.fullmatch(to):
            raise ValueError(f"{to!r} can't be dialled: it holds a character that has no place in a dial string")
        if not self.trunk:
            return f"{self.endpoint_technology}/{to}"
        if self.endpoint_technology.upper() == "PJSIP":
            return f"PJSIP/{to}@{self.trunk}"
        return f"{self.endpoint_technology}/{self.trunk}/{to}"
