"""The plugins that twistd and the assistants' registry find. Every twistd imports this: nothing heavy may be here."""

from twisted.application.service import ServiceMaker

from rapida_twisted.assistants.plugin import AssistantPlugin

rapida_media = ServiceMaker(
    "rapida-media", "rapida_twisted.tap", "Takes phone calls from Asterisk, for an assistant to answer", "rapida-media"
)
bridge = AssistantPlugin(
    "bridge",
    "bridge[:wss://HOST/PATH | :audiosocket://HOST:PORT | :@FILE]  carries calls on to another server: that of"
    " UPSTREAM__URL, or a program that speaks chan_websocket or AudioSocket",
    "rapida_twisted.assistants.bridge",
)
echo = AssistantPlugin("echo", "echo  says what it hears", "rapida_twisted.assistants.echo")
greeter = AssistantPlugin(
    "greeter",
    "greeter  says a welcome, then all it hears a second later; # hangs up",
    "rapida_twisted.assistants.greeter",
)
play = AssistantPlugin("play", "play:FILE  plays a WAV file, then hangs up", "rapida_twisted.assistants.play")
record = AssistantPlugin(
    "record",
    "record[:ASSISTANT]  records the call, answered by a beep or by another assistant, in the state directory",
    "rapida_twisted.assistants.record",
)
