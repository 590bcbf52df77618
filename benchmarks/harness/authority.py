"""A certification authority for one test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority"]

_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


class Authority:
    """An authority, and one server's certificate by it.

    :param directory: where the files are written; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = directory / "ca.pem"
        self.certificate = directory / "cert.pem"
        self.key = directory / "key.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("an authority for a test")
        made = _certificate(self._name, self._key.public_key(), self._name)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        made = made.add_extension(_SIGNS_CERTIFICATES, critical=True)
        # Python 3.13 and later refuse an authority without the one, and a certificate without the other.
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        made = made.add_extension(self._identifier, critical=False)
        self._write(self.authority, made)

    def certify(self, common_name: str) -> None:
        """Make the server's key and its certificate for 127.0.0.1.

        :param common_name: the only place where Asterisk's own TLS looks for an address; CURL() looks elsewhere.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        made = _certificate(_name(common_name), key.public_key(), self._name)
        address = x509.IPAddress(IPv4Address("127.0.0.1"))
        made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier)
        made = made.add_extension(issuer, critical=False)
        self._write(self.certificate, made)

    def endpoint(self, port: int) -> str:
        """The certified server's ``--https``."""
        return f"ssl:{port}:privateKey={self.key}:certKey={self.certificate}:interface=127.0.0.1"

    def _write(self, path: Path, made: x509.CertificateBuilder) -> None:
        path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
    )
