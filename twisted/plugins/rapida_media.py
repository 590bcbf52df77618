"""What twistd and the assistants' registry find through ``twisted.plugin``."""

from twisted.application.service import ServiceMaker

from rapida_twisted.assistants.bridge import BridgeFactory
from rapida_twisted.assistants.echo import EchoFactory
from rapida_twisted.assistants.greeter import GreeterFactory
from rapida_twisted.assistants.play import PlayFactory
from rapida_twisted.assistants.record import RecordFactory

rapida_media = ServiceMaker(
    "rapida-media", "rapida_twisted.tap", "Takes phone calls from Asterisk, for an assistant to answer", "rapida-media"
)
bridge = BridgeFactory()
echo = EchoFactory()
greeter = GreeterFactory()
play = PlayFactory()
record = RecordFactory()
