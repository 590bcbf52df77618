"""Ports: certificates that are renewed, storms of connections, and what can't be listened on."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from benchmarks.harness.authority import Authority
from rapida_twisted.errors import StartError
from rapida_twisted.ports.listening_port import ACCEPTS_A_TURN, Listener, tcp_endpoint


class Greeter(Protocol):
    """Says a word to whoever connects, and closes."""

    def connectionMade(self) -> None:
        self.transport.write(b"hello")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


class Greeters(ServerFactory):
    """Makes greeters."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Greeter()


class ListenerTests(TestCase):
    """One port."""

    def listener(self, description: str) -> Listener:
        """A port that is closed after the test."""
        listener = Listener("the test", description, Greeters(), reactor)
        self.addCleanup(listener.close)
        return listener

    def shown_name(self, port: int) -> str:
        """The name in the certificate that a client is shown."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
        subject = x509.load_pem_x509_certificate(pem.encode()).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    async def test_renewed_certificate(self) -> None:
        """A certificate that is replaced on the disk is shown from then on, on the same port; a broken one is not."""
        files = Authority(Path(self.mktemp()))
        files.certify("first")
        listener = self.listener(f"ssl:0:interface=127.0.0.1:privateKey={files.key}:certKey={files.certificate}")
        listener.open()
        port = listener.port_number()
        self.assertEqual(await deferToThread(self.shown_name, port), "first")

        files.certify("second")
        for path in (files.key, files.certificate):
            os.utime(path, (1, 1))
        listener.renew_certificate()
        self.assertEqual(listener.port_number(), port)
        self.assertEqual(await deferToThread(self.shown_name, port), "second")

        files.certificate.write_text("this is no certificate")
        listener.renew_certificate()
        self.assertEqual(await deferToThread(self.shown_name, port), "second")

    async def test_few_accepts_a_turn(self) -> None:
        """However many connections come, few are accepted in a turn of the reactor, so that calls go on."""
        listener = self.listener(tcp_endpoint("127.0.0.1", 0))
        listener.open()
        port = listener._port
        port.numberAccepts = 1000  # type: ignore[union-attr]  # what Twisted does after a storm
        self.assertEqual(port.numberAccepts, ACCEPTS_A_TURN)  # type: ignore[union-attr]

    def test_what_cannot_be_listened_on(self) -> None:
        """An endpoint that does not exist, or has no certificate, is one sentence."""
        for description in ("carrier-pigeon:1", "ssl:0:privateKey=/nowhere.pem"):
            error = self.assertRaises(StartError, self.listener(description).open)
            self.assertIn("the test", str(error))
