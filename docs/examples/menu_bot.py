"""An assistant with a menu: plays it, takes a choice that may interrupt it, and transfers."""

from rapida_twisted import Assistant, Call

EXTENSIONS = {"1": "PJSIP/200", "2": "PJSIP/300"}


class Menu(Assistant):
    async def answer(self, call: Call) -> None:
        menu = call.play("menu.wav")
        choice = await call.digits(pattern="[12]", timeout_s=10, on_digit=lambda digits: call.stop(menu))
        if choice in EXTENSIONS:
            await call.transfer(EXTENSIONS[choice])
        else:
            await call.play_tone(440, 300)
            await call.hang_up()
