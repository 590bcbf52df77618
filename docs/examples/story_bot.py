"""An assistant that a key interrupts. It knows how much of the interrupted speech the caller heard."""

from rapida_twisted import Assistant, Call

STORIES = {"1": "fox.wav", "2": "crow.wav"}


class Stories(Assistant):
    heard_ms = 0.0

    async def answer(self, call: Call) -> None:
        playing = call.play_tone(440, 500)
        while True:
            # Any key ends the wait: the choice is checked here, so that a wrong key gets an answer at once.
            key = await call.digits(1, timeout_s=60)
            call.stop(playing)  # Does nothing if it has ended.
            outcome = await playing
            self.heard_ms += outcome.heard_ms
            if not key:
                await call.hang_up()
            elif key in STORIES:
                playing = call.play(STORIES[key])
            else:
                playing = call.play_tone(220, 500)
