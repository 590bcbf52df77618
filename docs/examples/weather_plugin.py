"""A plugin: belongs into ``twisted/plugins/`` of your own package."""

from collections.abc import Callable

from twisted.plugin import IPlugin
from zope.interface import implementer

from rapida_twisted import Assistant, AssistantEnvironment, Call, CallContext, IAssistantFactory, SettingsError
from rapida_twisted.audio.tones import tone


class Weather(Assistant):
    rate_hz = 8000

    def __init__(self, city: str) -> None:
        self.city = city

    async def answer(self, call: Call) -> None:
        await call.play(tone(440 if self.city == "Berlin" else 220, 500, call.rate_hz))
        await call.hang_up()


@implementer(IPlugin, IAssistantFactory)
class WeatherFactory:
    name = "weather"
    usage = "weather:CITY  says the weather of a city, as a tone"

    def configure(self, argument: str, environment: AssistantEnvironment) -> Callable[[CallContext], Assistant]:
        if not argument:
            raise SettingsError("weather needs a city, as in weather:Berlin")
        return lambda context: Weather(argument)


weather = WeatherFactory()
