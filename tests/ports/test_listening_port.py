"""Listening ports: renewed certificates, storms of connections, and endpoints that cannot listen."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from benchmarks.harness.authority import Authority
from rapida_twisted.errors import StartError
from rapida_twisted.ports.endpoints import tcp_endpoint
from rapida_twisted.ports.limited_accept import ACCEPTS_PER_TURN
from rapida_twisted.ports.listening_port import ListeningPort


def rsa_certificate() -> bytes:
    """A self-signed certificate with an RSA key, and the key, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rsa")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(day).not_valid_after(day.replace(year=2100))
    pem, form, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return builder.sign(key, hashes.SHA256()).public_bytes(pem) + key.private_bytes(pem, form, plain)


class Greeter(Protocol):
    """Sends a greeting and closes."""

    def connectionMade(self) -> None:
        self.transport.write(b"hello")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


class Greeters(ServerFactory):
    """Makes greeters."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return Greeter()


class ListeningPortTests(TestCase):
    """One port."""

    def port(self, description: str) -> ListeningPort:
        """A port that is closed after the test."""
        port = ListeningPort("the test", description, Greeters(), reactor)
        self.addCleanup(port.close)
        return port

    def shown_name(self, port: int) -> str:
        """The name in the certificate that a client gets."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
        subject = x509.load_pem_x509_certificate(pem.encode()).subject
        return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    async def test_renewed_certificate(self) -> None:
        """A certificate that is replaced on the disk is served from then on, on the same port; a broken one is not."""
        files = Authority(Path(self.mktemp()))
        files.certify("first")
        listening = self.port(f"ssl:0:interface=127.0.0.1:privateKey={files.key}:certKey={files.certificate}")
        listening.open()
        port = listening.port_number()
        self.assertEqual(await deferToThread(self.shown_name, port), "first")

        files.certify("second")
        for path in (files.key, files.certificate):
            os.utime(path, (1, 1))
        listening.renew_certificate()
        self.assertEqual(listening.port_number(), port)
        self.assertEqual(await deferToThread(self.shown_name, port), "second")

        files.certificate.write_text("this is no certificate")
        listening.renew_certificate()
        self.assertEqual(await deferToThread(self.shown_name, port), "second")

    def agreed(self, port: int, ciphers: str) -> str:
        """The cipher of TLS 1.2 that the server agrees to, or nothing."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            try:
                with context.wrap_socket(plain) as connection:
                    cipher = connection.cipher()
                    return cipher[0] if cipher else ""
            except (ssl.SSLError, ConnectionResetError):
                return ""

    async def test_forward_secrecy(self) -> None:
        """With TLS 1.2, a key that is stolen later decrypts nothing."""
        pem = Path(self.mktemp())
        pem.write_bytes(rsa_certificate())
        listening = self.port(f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}")
        listening.open()
        port = listening.port_number()
        for cipher in ("AES128-GCM-SHA256", "AES256-SHA", "ECDHE-RSA-AES128-SHA"):
            self.assertEqual(await deferToThread(self.agreed, port, cipher), "")
        for cipher in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"):
            self.assertEqual(await deferToThread(self.agreed, port, cipher), cipher)

    async def test_few_accepts_a_turn(self) -> None:
        """In a storm of connections a reactor turn accepts only a few, so that frames leave in time."""
        listening = self.port(tcp_endpoint("127.0.0.1", 0))
        listening.open()
        port = listening._port
        port.numberAccepts = 1000  # type: ignore[union-attr]  # what Twisted does after a storm
        self.assertEqual(port.numberAccepts, ACCEPTS_PER_TURN)  # type: ignore[union-attr]

    def test_what_cannot_be_listened_on(self) -> None:
        """The error for an unknown endpoint, or one without a certificate, is one sentence."""
        for description in ("carrier-pigeon:1", "ssl:0:privateKey=/nowhere.pem"):
            error = self.assertRaises(StartError, self.port(description).open)
            self.assertIn("the test", str(error))
