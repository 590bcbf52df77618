"""What twistd and the assistants' registry find through ``twisted.plugin``."""

from twisted.application.service import ServiceMaker

rapida_media = ServiceMaker(
    "rapida-media", "rapida_twisted.tap", "Takes phone calls from Asterisk and gives them to an assistant", "rapida-media"
)
