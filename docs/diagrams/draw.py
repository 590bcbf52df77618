"""Draws the diagrams of the pages as SVG files beside this one. Needs nothing but Python.

    python docs/diagrams/draw.py

The files are committed, so that building the pages needs no drawing program; a test compares them with this script.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

__all__ = ["LAYERS", "diagrams"]

INK, PALE, LINE, ACCENT, RETURN = "#1b1f24", "#f4f6f9", "#8a94a3", "#0b57b7", "#b3541e"

LAYERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("command line", {"tools": "rapida-media-ctl, rapida-phone"}),
    ("twistd", {"tap": "options to Settings to service"}),
    ("the program", {"server": "build, lifecycle, reception, workers", "testing": "FakeCall"}),
    ("answering", {"assistants": "greeter, echo, play, record, bridge"}),
    ("another server's assistant", {"bridge": "routes, far ends, breaker, fallback"}),
    (
        "around a call",
        {
            "protocols": "sockets to Call",
            "store": "memory, SQLite, Redis",
            "web": "HTTP pages",
            "asterisk": "ARI, Stasis, vault",
            "webhook": "signed POSTs",
        },
    ),
    ("a call", {"media": "Call, clock, pacers", "ports": "listening, limits, TLS"}),
    ("observation", {"observe": "metrics, logs"}),
    ("plug points", {"interfaces": "what you may replace", "settings": "one frozen object"}),
    (
        "pure",
        {
            "wire": "bytes to frames",
            "audio": "samples to samples",
            "context": "a call's record",
            "net": "HTTP client, addresses",
            "credentials": "keys, masking",
        },
    ),
    ("known to all", {"errors": "one family of exceptions"}),
)
"""From the top down: each layer, and in it the rooms with what they hold. A room imports only from layers below."""


class Drawing:
    """SVG elements, collected."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="sans-serif" font-size="13">',
            f"<title>{escape(title)}</title>",
            "<defs>"
            + "".join(
                f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
                f' orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
                for name, colour in (("head", ACCENT), ("back", RETURN))
            )
            + "</defs>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, title: str, *lines: str, fill: str = PALE) -> None:
        """A box with a bold title, and lines below it."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{fill}" stroke="{LINE}"/>'
        )
        top = y + height / 2 + 5 - 8.5 * len(lines)
        self.text(x + width / 2, top, title, bold=True)
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, top + 17 * number, line, size=12)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        bold: bool = False,
        size: int = 13,
        anchor: str = "middle",
        fill: str = INK,
    ) -> None:
        """One line of text; ``anchor`` as SVG has it."""
        style = f'font-size="{size}" text-anchor="{anchor}" fill="{fill}"' + (' font-weight="bold"' if bold else "")
        self.parts.append(f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>')

    def arrow(self, *points: tuple[float, float], back: bool = False, both: bool = False) -> None:
        """An arrow along some points; ``back`` has the colour of the way back, ``both`` has two heads."""
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        name, colour = ("back", RETURN) if back else ("head", ACCENT)
        start = f' marker-start="url(#{name})"' if both else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6" marker-end="url(#{name})"{start}/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, dash: str = "") -> None:
        """A thin line."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{LINE}"{dashes}/>')

    def svg(self) -> str:
        """The file's text."""
        return "\n".join([*self.parts, "</svg>", ""])


def phases() -> str:
    """The two phases of a call, as a sequence."""
    drawing = Drawing(960, 470, "The two phases of a call")
    phone, asterisk, server, assistant = 90, 310, 640, 880
    for x, name, line in (
        (phone, "Phone", ""),
        (asterisk, "Asterisk", "the dialplan"),
        (server, "rapida-media", "twistd"),
        (assistant, "Assistant", "your program"),
    ):
        drawing.line(x, 60, x, 455, "3 3")
        drawing.box(x - 70, 10, 140, 48, name, *filter(None, [line]))
    for y, height, title in ((122, 82, "Phase 1: registration (HTTP, port 8080)"), (222, 228, "Phase 2: media")):
        drawing.parts.append(
            f'<rect x="230" y="{y}" width="720" height="{height}" rx="5" fill="{ACCENT}" fill-opacity="0.06"/>'
        )
        drawing.text(asterisk + 14, y + 18, title, bold=True, anchor="start", fill=ACCENT)

    def message(y: float, start: float, end: float, text: str, *, back: bool = False, both: bool = False) -> None:
        step = 4 if end > start else -4
        drawing.arrow((start + step, y), (end - step, y), back=back, both=both)
        drawing.text((start + end) / 2, y - 6, text, size=12)

    message(98, phone, asterisk, "a call comes in")
    message(166, asterisk, server, "GET /v1/talk/asterisk/call/{assistantId}")
    message(194, server, asterisk, "200: the contextId, as plain text", back=True)
    message(264, asterisk, server, "AudioSocket: UUID frame, or WebSocket: upgrade")
    message(288, server, assistant, "one Assistant, answer(call)")
    message(322, asterisk, server, "audio, digits", both=True)
    message(322, server, assistant, "audio, digits", both=True)
    message(322, phone, asterisk, "audio", both=True)
    message(366, assistant, server, "call.hang_up()", back=True)
    message(394, server, asterisk, "hangup frame, or HANGUP", back=True)
    drawing.text(asterisk + 14, 424, "The dialplan goes on with its next line.", size=12, anchor="start")
    drawing.text(server + 14, 424, "The record is completed;", size=12, anchor="start")
    drawing.text(server + 14, 441, "call_ended(reason) is called once.", size=12, anchor="start")
    return drawing.svg()


def rooms() -> str:
    """The rooms of the package in their layers."""
    row, left, width = 56, 200, 760
    drawing = Drawing(960, row * len(LAYERS) + 10, "The rooms of the package, in layers")
    for number, (title, contents) in enumerate(LAYERS):
        y = 8 + row * number
        drawing.text(left - 36, y + 29, title, anchor="end", size=12)
        each = width / len(contents)
        for place, (room, purpose) in enumerate(contents.items()):
            drawing.box(left + each * place, y, each - 8, row - 10, room, purpose)
    drawing.arrow((left - 18, 20), (left - 18, row * len(LAYERS) - 10))
    return drawing.svg()


def call() -> str:
    """A call's way: registration, the caller's audio upward, the assistant's audio back."""
    drawing = Drawing(960, 430, "A call's way through the server")
    drawing.box(10, 20, 130, 390, "Asterisk")
    for x, title, *lines in (
        (200, "web/registration", "checks the key,", "the parameters"),
        (400, "registrar", "server: chooses", "the assistant's rule"),
        (600, "store", "save: pending", "claim: exactly once"),
        (800, "server/reception", "claims the context,", "starts the Call"),
    ):
        drawing.box(x, 20, 150, 72, title, *lines)
    for x, title, *lines in (
        (200, "protocols", "socket to frames", "(with wire/)"),
        (400, "media/call", "converts once:", "format and rate"),
        (800, "Assistant", "one for each call", "answer(call), callbacks"),
    ):
        drawing.box(x, 170, 150, 72, title, *lines)
    for x, title, *lines in (
        (200, "wire", "encodes frames", "for the socket"),
        (400, "media/pacer", "20 ms in real time,", "or up to 200 ms ahead"),
        (600, "audio/playout", "the queue: what is", "said, and live audio"),
    ):
        drawing.box(x, 338, 150, 72, title, *lines)
    for x in (350, 550):
        drawing.arrow((x, 50), (x + 48, 50))
    drawing.arrow((140, 50), (198, 50))
    drawing.text(169, 42, "HTTP", size=11)
    drawing.arrow((200, 76), (142, 76), back=True)
    drawing.text(171, 108, "contextId", size=11)
    drawing.arrow((798, 76), (752, 76))
    drawing.arrow((140, 206), (198, 206))
    drawing.text(169, 198, "media", size=11)
    drawing.arrow((350, 206), (398, 206))
    drawing.arrow((275, 168), (275, 130), (845, 130), (845, 94))
    drawing.text(470, 123, "the first frame or the handshake names the contextId: claim()", size=12)
    drawing.arrow((905, 94), (905, 150), (475, 150), (475, 168))
    drawing.text(640, 165, "start(): a Call on this channel", size=12)
    drawing.arrow((550, 206), (798, 206))
    drawing.text(674, 198, "audio_received, digit_received", size=12)
    drawing.arrow((875, 244), (875, 374), (752, 374), back=True)
    drawing.text(864, 300, "call.play, call.write", size=12, anchor="end")
    drawing.arrow((600, 374), (552, 374), back=True)
    drawing.arrow((400, 374), (352, 374), back=True)
    drawing.arrow((200, 374), (142, 374), back=True)
    drawing.arrow((475, 288), (475, 336))
    drawing.box(400, 262, 150, 30, "media/clock: a tick", fill="#fff7e6")
    return drawing.svg()


def period() -> str:
    """The media clock's period of 20 ms, its five slots, and one call in them."""
    drawing = Drawing(960, 210, "The media clock: a period of 20 ms in five slots")
    slot = 90
    for number in range(10):
        x = 20 + slot * number
        fill = PALE if number < 5 else "#e4eaf2"
        drawing.parts.append(f'<rect x="{x}" y="60" width="{slot}" height="44" fill="{fill}" stroke="{LINE}"/>')
        drawing.text(x + slot / 2, 78, f"slot {number % 5}", bold=True, size=12)
        drawing.text(x + slot / 2, 95, f"{4 * number} ms", size=11)
    for number in (2, 7):
        x = 20 + slot * number
        drawing.arrow((x - 26, 14), (x - 26, 58))
        drawing.arrow((x + 8, 106), (x + 8, 150), back=True)
        drawing.text(x + 14, 146, "read the call's connection,", size=12, anchor="start")
        drawing.text(x + 14, 162, "then send its frame", size=12, anchor="start")
    drawing.text(164, 26, "the caller's packet comes", size=12, anchor="end")
    drawing.text(614, 26, "the next one, 20 ms later", size=12, anchor="end")
    note = "This call sits in slot 2, because its packets come in slot 1. Other calls sit in other slots."
    drawing.text(20, 194, note, size=12, anchor="start")
    return drawing.svg()


def diagrams() -> dict[str, str]:
    """The files' names and texts."""
    return {"phases.svg": phases(), "rooms.svg": rooms(), "call.svg": call(), "period.svg": period()}


if __name__ == "__main__":
    for name, text in diagrams().items():
        (Path(__file__).parent / name).write_text(text, "utf-8")
