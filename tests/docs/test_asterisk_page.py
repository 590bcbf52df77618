"""The page "Connect your Asterisk" prints what the program prints."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.dialplan import (
    DialplanValues,
    audiosocket_dialplan,
    audiosocket_outbound_dialplan,
    freepbx_dialplan,
    websocket_client_conf,
    websocket_dialplan,
)
from tests.support.blocks import named_blocks

VALUES = DialplanValues("rpd-xxx-your-api-key", "http://127.0.0.1:8080", "127.0.0.1", 4573)
CA_FILE = "/etc/asterisk/rapida-ca.pem"


class AsteriskPageTests(SynchronousTestCase):
    """What the live suite runs is read from the page; so this holds the functions to what was run."""

    def setUp(self) -> None:
        """Read the page."""
        self.blocks = named_blocks("asterisk.rst")

    def test_audiosocket(self) -> None:
        """The dialplan for AudioSocket is that of the program."""
        self.assertEqual(self.blocks["audiosocket-dialplan"], audiosocket_dialplan(VALUES))

    def test_freepbx(self) -> None:
        """The page for FreePBX prints what the program prints."""
        text = f"{audiosocket_dialplan(VALUES)}\n{audiosocket_outbound_dialplan()}"
        self.assertEqual(named_blocks("freepbx.rst")["freepbx-dialplan"], freepbx_dialplan(text))

    def test_websocket(self) -> None:
        """The two files for WebSocket are those of the program."""
        self.assertEqual(self.blocks["websocket-dialplan"], websocket_dialplan(VALUES))
        self.assertEqual(self.blocks["websocket-client-conf"], websocket_client_conf(VALUES))

    def test_websocket_with_tls(self) -> None:
        """Those for TLS, too."""
        values = replace(VALUES, http_url="https://your-hostname")
        self.assertEqual(self.blocks["websocket-dialplan-tls"], websocket_dialplan(values, CA_FILE))
        self.assertEqual(self.blocks["websocket-client-conf-tls"], websocket_client_conf(values, CA_FILE))

    def test_key_as_password(self) -> None:
        """The variant with a password differs in nothing else."""
        password = "username = asterisk\npassword = rpd-xxx-your-api-key\n"
        self.assertEqual(self.blocks["websocket-client-conf-password"], websocket_client_conf(VALUES) + password)
        with_key = websocket_dialplan(VALUES)
        dialled = self.blocks["websocket-dial-password"].strip()
        self.assertIn(dialled, with_key.replace(",x-api-key=${RAPIDA_API_KEY}),,g)", "),,g)"))
