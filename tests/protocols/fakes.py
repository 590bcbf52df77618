"""A fake reception, fake sinks, and a self-signed certificate."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Collection
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from rapida_twisted.context import CallContext, EndReason
from rapida_twisted.interfaces import ICallStarter, IMediaChannel, IMediaSink, IReception
from tests.media.fakes import KeptLog

NEVER = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


@implementer(IMediaSink)
class FakeSink:
    """A call that writes down what its channel says."""

    def __init__(self, context: CallContext, channel: IMediaChannel) -> None:
        self.context = context
        self.channel = channel
        self.events: list[object] = []
        """Audio as bytes, digits as text, and the rates that the channel changed to, in their order."""
        self.ended: list[tuple[EndReason, str]] = []
        self.on_audio: Callable[[bytes], object] = lambda payload: None
        self.on_ended: Callable[[], object] = lambda: None

    def audio_received(self, payload: bytes) -> None:
        """Keep it."""
        self.events.append(payload)
        self.on_audio(payload)

    def digit_received(self, digit: str) -> None:
        """Keep it."""
        self.events.append(digit)

    def format_changed(self) -> None:
        """Keep the new rate."""
        self.events.append(self.channel.format.rate_hz)

    def sending_paused(self, paused: bool) -> None:
        """AudioSocket has no such thing."""
        raise AssertionError("sending_paused() is for paced channels")

    def media_ended(self, reason: EndReason, detail: str = "") -> None:
        """Keep it."""
        self.ended.append((reason, detail))
        self.on_ended()

    @property
    def heard(self) -> bytes:
        """All the audio that came."""
        return b"".join(event for event in self.events if isinstance(event, bytes))


class EchoSink(FakeSink):
    """A call that gives back what it hears."""

    def audio_received(self, payload: bytes) -> None:
        """Keep it, and say it."""
        super().audio_received(payload)
        self.channel.send_audio(payload)


@implementer(ICallStarter)
class FakeStarter:
    """Starts calls that record their events."""

    def __init__(self, make_sink: Callable[[CallContext, IMediaChannel], FakeSink] = FakeSink) -> None:
        self.abandoned: list[tuple[CallContext, EndReason, str]] = []
        self.sinks: list[FakeSink] = []
        self.on_start: Callable[[IMediaChannel], None] = lambda channel: None
        """Called when a call starts, before it has its sink."""
        self._make_sink = make_sink

    def start(self, context: CallContext, channel: IMediaChannel) -> IMediaSink:
        """Start a call that records its events."""
        self.on_start(channel)
        self.sinks.append(self._make_sink(context, channel))
        return self.sinks[-1]

    def abandon(self, context: CallContext, reason: EndReason, detail: str = "") -> None:
        """Keep it."""
        self.abandoned.append((context, reason, detail))

    @property
    def sink(self) -> FakeSink:
        """The one call that was started."""
        (sink,) = self.sinks
        return sink


@implementer(IReception)
class FakeReception(FakeStarter):
    """Every call is registered; a test may take over what claiming one gives."""

    def __init__(self, make_sink: Callable[[CallContext, IMediaChannel], FakeSink] = FakeSink) -> None:
        super().__init__(make_sink)
        self.claims: list[tuple[str, str, str]] = []
        self.answer: Callable[[CallContext], Deferred[CallContext]] = succeed
        """What a claim gives."""
        self.assistants: Collection[str] = ()
        """Those whose calls the last claim may take."""

    def claim(
        self, context_id: str, transport: str, peer: str, assistants: Collection[str] = ()
    ) -> Deferred[CallContext]:
        """Keep it, and answer."""
        self.claims.append((context_id, transport, peer))
        self.assistants = assistants
        context = CallContext(context_id=context_id, assistant_id="123", created_at=0.0, expires_at=300.0)
        return self.answer(context.claimed(transport=transport, peer=peer, now=1.0))


def warnings_of(log: KeptLog) -> list[str]:
    """The warnings so far, as they are read in a log file."""
    return [formatEvent(event) for event in log.at(LogLevel.warn)]


def write_certificate(test: SynchronousTestCase) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "rapida test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(NEVER)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = Path(test.mktemp())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
