"""The whole service in an application of your own: here with an assistant that is no plugin and has no name.

Run it with ``twistd -ny embed_service.py``.
"""

from twisted.application.service import Application

from rapida_twisted import RapidaMedia, Settings

settings = Settings.from_mapping(
    {
        "ASSISTANT": "*=support_bot:Support",
        "STORE__URL": "memory:",
        "AUDIOSOCKET__PORT": "0",
        "HTTP__PORT": "0",
        "ADMIN__PORT": "0",
    }
)
application = Application("my-telephone")
service = RapidaMedia(settings)
service.setServiceParent(application)
