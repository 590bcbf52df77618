"""Credentials of an Asterisk's ARI."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.ari.credential import AriCredential
from rapida_twisted.errors import SettingsError

PASSWORD = "hunter2-hunter2"


def credential(**changes: str) -> AriCredential:
    """A good credential, but for the changes."""
    values = {"name": "office", "ari_url": "http://pbx:8088", "ari_user": "rapida", "ari_password": PASSWORD}
    return AriCredential(**{**values, **changes})


class CredentialTests(SynchronousTestCase):
    """What may stand in a credential, and what is dialled with it."""

    def test_password_is_not_shown(self) -> None:
        """The password is in no repr and no str."""
        self.assertNotIn(PASSWORD, f"{credential()!r} {credential()}")

    def test_bad_values(self) -> None:
        """A value that can't be used is refused, in a sentence without the password."""
        for name, value in [
            ("name", ""),
            ("name", "a b"),
            ("name", "-x"),
            ("name", "x" * 65),
            ("ari_url", "pbx:8088"),
            ("ari_url", "ftp://pbx"),
            ("ari_url", "http://"),
            ("ari_url", f"http://rapida:{PASSWORD}@pbx:8088"),
            ("ari_url", "http://pbx:8088/?api_key=x"),
            ("ari_url", "http://pbx:8088/#x"),
            ("ari_url", "http://[::1"),  # urlsplit() raises ValueError
            ("ari_url", "http://pbx:99999"),
            ("ari_url", "http://pbx:x"),
            ("ari_url", "http://pbx:0"),
            ("ari_url", "http://p\x00bx:8088"),
            ("ari_user", ""),
            ("ari_user", "rapida:x"),
            ("ari_user", "rapida\n"),
            ("ari_password", ""),
            ("endpoint_technology", "PJSIP/"),
            ("endpoint_technology", ""),
            ("trunk", "a,b"),
            ("trunk", "a&b"),
            ("trunk", "a/b"),
        ]:
            error = self.assertRaises(SettingsError, credential, **{name: value})
            self.assertNotIn(PASSWORD, str(error), f"{name}={value}")

    def test_endpoint_through_a_trunk(self) -> None:
        """PJSIP names the number before the trunk, all others after it."""
        self.assertEqual(credential(trunk="trunk").endpoint("+4930123"), "PJSIP/+4930123@trunk")
        self.assertEqual(credential(trunk="trunk", endpoint_technology="IAX2").endpoint("200"), "IAX2/trunk/200")

    def test_endpoint_without_a_trunk(self) -> None:
        """Without a trunk the number is an endpoint itself."""
        self.assertEqual(credential().endpoint("200"), "PJSIP/200")

    def test_number_that_names_a_trunk(self) -> None:
        """Over a trunk a number names no other; without one, an endpoint may be of the form NUMBER@TRUNK."""
        for technology in ("PJSIP", "IAX2"):
            through_trunk = credential(trunk="trunk", endpoint_technology=technology)
            for to in ("200@other", "other/200", "200@", "@", "sip:200", "200:5060"):
                self.assertRaises(ValueError, through_trunk.endpoint, to)
        self.assertEqual(credential().endpoint("200@trunk"), "PJSIP/200@trunk")

    def test_passwords(self) -> None:
        """What HTTP can carry is taken as it is, a colon in the password too."""
        for password in ("a:b c", "pässwörd", "€"):
            self.assertEqual(credential(ari_password=password).ari_password, password)

    def test_number_that_breaks_out(self) -> None:
        """A character that means something to the dialplan is refused in a number."""
        for to in ("", "2,00", "2&3", "${X}", "a b", 'a"b', "a\nb", "a(b)", "a/b", "ä", "1" * 129):
            self.assertRaises(ValueError, credential(trunk="trunk").endpoint, to)
