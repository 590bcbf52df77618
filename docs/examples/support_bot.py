"""An assistant in ten lines: asks for a PIN, then says back what it hears."""

from rapida_twisted import Assistant, Call
from rapida_twisted.audio.tones import tone


class Support(Assistant):
    rate_hz = 16000

    async def answer(self, call: Call) -> None:
        await call.play(tone(880, 300, call.rate_hz))
        digits = await call.digits(4, timeout_s=5)
        if digits != "1234":
            await call.hang_up()

    def audio_received(self, call: Call, samples: bytes) -> None:
        call.write(samples)
