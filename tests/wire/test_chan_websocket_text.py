"""chan_websocket's control messages: as a real Asterisk writes them, round trips, and arbitrary text."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import LocalProtocolError, RemoteProtocolError
from rapida_twisted.wire.chan_websocket import (
    COMMANDS,
    EVENTS,
    MAX_COMMAND_BYTES,
    Answer,
    Command,
    ContinueMedia,
    ControlForm,
    DtmfEnd,
    ErrorEvent,
    Event,
    FlushMedia,
    GetStatus,
    Hangup,
    MarkMedia,
    MediaBufferingCompleted,
    MediaMarkProcessed,
    MediaStart,
    MediaXoff,
    MediaXon,
    PauseMedia,
    QueueDrained,
    ReportQueueDrained,
    SetMediaDirection,
    StartMediaBuffering,
    Status,
    StopMediaBuffering,
    UnknownCommand,
    UnknownEvent,
)
from rapida_twisted.wire.chan_websocket_text import decode_command, decode_event, encode_command, encode_event
from tests.support.websocket_strategies import (
    COMMAND_STRATEGIES,
    EVENT_STRATEGIES,
    extra_fields,
    json_values,
)

PLAIN, JSON = ControlForm.PLAIN, ControlForm.JSON

PLAIN_EVENTS: list[tuple[str, Event]] = [
    (
        "MEDIA_START connection_id:rapida channel:WebSocket/rapida/0x7fbce000af40 channel_id:1795402101.4 format:ulaw"
        " optimal_frame_size:160 ptime:20",
        MediaStart(
            connection_id="rapida", channel="WebSocket/rapida/0x7fbce000af40", channel_id="1795402101.4",
            format="ulaw", optimal_frame_size=160, ptime=20,
        ),
    ),
    (
        "STATUS channel_id:1795402101.4 queue_length:1 xon_level:800 xoff_level:900 queue_full:false bulk_media:false"
        " media_paused:false",
        Status(channel_id="1795402101.4", queue_length=1),
    ),
    ("DTMF_END digit:5 channel_id:1795402101.4", DtmfEnd(digit="5", channel_id="1795402101.4")),
    ("MEDIA_XOFF", MediaXoff()),
    ("MEDIA_XON", MediaXon()),
    ("QUEUE_DRAINED", QueueDrained()),
    ("MEDIA_BUFFERING_COMPLETED", MediaBufferingCompleted()),
    ("MEDIA_BUFFERING_COMPLETED a b", MediaBufferingCompleted(correlation_id="a b")),
    ("MEDIA_MARK_PROCESSED", MediaMarkProcessed()),
    ("MEDIA_MARK_PROCESSED 17", MediaMarkProcessed(correlation_id="17")),
    (
        "ERROR channel_id:1.4 error_text:MARK_MEDIA not supported in passthrough mode",
        ErrorEvent(channel_id="1.4", error_text="MARK_MEDIA not supported in passthrough mode"),
    ),
]  # fmt: skip
"""As a real Asterisk writes them."""

JSON_EVENTS: list[tuple[str, Event]] = [
    (
        '{"event":"MEDIA_START","connection_id":"rapida","channel":"WebSocket/rapida/0x7fbce000af40",'
        '"channel_id":"1795402586.27","format":"slin16","optimal_frame_size":640,"ptime":20,'
        '"channel_variables":{"DIALEDPEERNUMBER":"...","MEDIA_WEBSOCKET_OPTIMAL_FRAME_SIZE":"640"}}',
        MediaStart(
            connection_id="rapida", channel="WebSocket/rapida/0x7fbce000af40", channel_id="1795402586.27",
            format="slin16", optimal_frame_size=640,
            channel_variables={"DIALEDPEERNUMBER": "...", "MEDIA_WEBSOCKET_OPTIMAL_FRAME_SIZE": "640"},
        ),
    ),
    (
        '{"event":"STATUS","channel_id":"1.4","queue_length":1000,"xon_level":800,"xoff_level":900,'
        '"queue_full":true,"bulk_media":false,"media_paused":false}',
        Status(channel_id="1.4", queue_length=1000, queue_full=True),
    ),
    ('{"event":"MEDIA_XOFF","channel_id":"1.4"}', MediaXoff(channel_id="1.4")),
    ('{"event":"MEDIA_XON","channel_id":"1.4"}', MediaXon(channel_id="1.4")),
    ('{"event":"QUEUE_DRAINED","channel_id":"1.4"}', QueueDrained(channel_id="1.4")),
    ('{"event":"DTMF_END","channel_id":"1.4","digit":"5"}', DtmfEnd(channel_id="1.4", digit="5")),
    (
        '{"event":"MEDIA_BUFFERING_COMPLETED","channel_id":"1.4","correlation_id":""}',
        MediaBufferingCompleted(channel_id="1.4"),
    ),
    (
        '{"event":"MEDIA_MARK_PROCESSED","channel_id":"1.4","correlation_id":"17"}',
        MediaMarkProcessed(channel_id="1.4", correlation_id="17"),
    ),
    ('{"event":"ERROR","channel_id":"1.4","error_text":"no"}', ErrorEvent(channel_id="1.4", error_text="no")),
]  # fmt: skip

PLAIN_COMMANDS: list[tuple[str, Command]] = [
    ("ANSWER", Answer()),
    ("HANGUP", Hangup()),
    ("START_MEDIA_BUFFERING", StartMediaBuffering()),
    ("STOP_MEDIA_BUFFERING", StopMediaBuffering()),
    ("STOP_MEDIA_BUFFERING two words", StopMediaBuffering("two words")),
    ("MARK_MEDIA", MarkMedia()),
    ("MARK_MEDIA 17", MarkMedia("17")),
    ("FLUSH_MEDIA", FlushMedia()),
    ("PAUSE_MEDIA", PauseMedia()),
    ("CONTINUE_MEDIA", ContinueMedia()),
    ("GET_STATUS", GetStatus()),
    ("REPORT_QUEUE_DRAINED", ReportQueueDrained()),
]

JSON_COMMANDS: list[tuple[str, Command]] = [
    *((f'{{"command":"{text}"}}', command) for text, command in PLAIN_COMMANDS if " " not in text),
    ('{"command":"STOP_MEDIA_BUFFERING","correlation_id":"two words"}', StopMediaBuffering("two words")),
    ('{"command":"MARK_MEDIA","correlation_id":"17"}', MarkMedia("17")),
    ('{"command":"SET_MEDIA_DIRECTION","direction":"in"}', SetMediaDirection("in")),
]

FIELD_NAMES = (
    "event", "channel_id", "digit", "format", "optimal_frame_size", "ptime", "channel_variables", "queue_length",
    "queue_full", "correlation_id", "error_text",
)  # fmt: skip


class EventTests(SynchronousTestCase):
    """What Asterisk says."""

    def test_plain(self) -> None:
        """Each event in the plain form, read and written as Asterisk writes it."""
        self.assertEqual({type(event) for _, event in PLAIN_EVENTS}, set(EVENTS.values()))
        for text, event in PLAIN_EVENTS:
            self.assertEqual(decode_event(text), (event, PLAIN))
            self.assertEqual(decode_event(encode_event(event, PLAIN)), (event, PLAIN))

    def test_plain_written(self) -> None:
        """In the plain form events have the fields that Asterisk gives them, each with its value."""
        for text, event in PLAIN_EVENTS:
            word, *fields = text.split(" ")
            written, *written_fields = encode_event(event, PLAIN).split(" ")
            self.assertEqual((written, sorted(written_fields)), (word, sorted(fields)))

    def test_json(self) -> None:
        """Each event in JSON, read and written as Asterisk writes it."""
        self.assertEqual({type(event) for _, event in JSON_EVENTS}, set(EVENTS.values()))
        for text, event in JSON_EVENTS:
            self.assertEqual(decode_event(text), (event, JSON))
            written = json.loads(encode_event(event, JSON))
            self.assertEqual({**written, "channel_variables": None}, {**json.loads(text), "channel_variables": None})

    def test_json_variables_written(self) -> None:
        """Channel variables exist in JSON only; the plain form has no place for them."""
        event = MediaStart(format="ulaw", optimal_frame_size=160, channel_variables={"A": "b c"})
        self.assertEqual(json.loads(encode_event(event, JSON))["channel_variables"], {"A": "b c"})
        self.assertNotIn("channel_variables", encode_event(event, PLAIN))

    def test_unknown_fields_kept(self) -> None:
        """Fields that this version does not know are kept, in both forms, and written again."""
        event, form = decode_event("DTMF_END digit:5 duration_ms:80 channel_id:1.4 nonsense")
        self.assertEqual((event.channel_id, dict(event.extra)), ("1.4", {"duration_ms": "80"}))
        self.assertIn("duration_ms:80", encode_event(event, form))
        event, form = decode_event('{"event":"MEDIA_XOFF","channel_id":"1.4","why":[1,{"a":null}]}')
        self.assertEqual(dict(event.extra), {"why": [1, {"a": None}]})
        self.assertEqual(json.loads(encode_event(event, form))["why"], [1, {"a": None}])

    def test_unknown_events(self) -> None:
        """An unknown event keeps all of its text, and its channel where the text has one."""
        for text, name, channel_id in (
            ("MEDIA_RAIN channel_id:1.4 mm:3", "MEDIA_RAIN", "1.4"),
            ('{"event":"MEDIA_RAIN","channel_id":"1.4"}', "MEDIA_RAIN", "1.4"),
            ('{"event":"MEDIA_RAIN","channel_id":["1.4"]}', "MEDIA_RAIN", ""),
            ('{"event":["MEDIA_XON"]}', "", ""),
            ('{"command":"ANSWER"}', "", ""),
            ("media_xon", "media_xon", ""),
            ("", "", ""),
            (" \n", "", ""),
        ):
            event, form = decode_event(text)
            self.assertEqual(event, UnknownEvent(name=name, text=text, channel_id=channel_id))
            self.assertEqual(encode_event(event, form), text)

    def test_error_text(self) -> None:
        """An error's text is all the rest, colons and blanks included, and may be empty."""
        text = "ERROR channel_id:1.4 error_text:'up: 1' is not a valid direction for SET_MEDIA_DIRECTION.\n"
        event, _ = decode_event(text)
        self.assertEqual(
            event,
            ErrorEvent(channel_id="1.4", error_text="'up: 1' is not a valid direction for SET_MEDIA_DIRECTION."),
        )
        self.assertEqual(
            decode_event("ERROR channel_id:1.4 error_text:")[0], ErrorEvent(channel_id="1.4", error_text="")
        )

    def test_incomplete(self) -> None:
        """A known event without a field that it must have is refused."""
        for text in (
            "MEDIA_START", "MEDIA_START format:ulaw", "MEDIA_START optimal_frame_size:160", "STATUS", "DTMF_END",
            "ERROR channel_id:1", '{"event":"MEDIA_START","format":"ulaw"}', '{"event":"DTMF_END"}',
            '{"event":"ERROR"}', '{"event":"STATUS"}',
        ):  # fmt: skip
            self.assertRaises(RemoteProtocolError, decode_event, text)

    def test_wrong_types(self) -> None:
        """A field of another type than its own is refused: numbers, flags, texts and variables."""
        start = {"event": "MEDIA_START", "format": "ulaw", "optimal_frame_size": 160}
        status = {"event": "STATUS", "queue_length": 1}
        for fields in (
            {**start, "optimal_frame_size": 160.0},
            {**start, "optimal_frame_size": "many"},
            {**start, "optimal_frame_size": True},
            {**start, "ptime": None},
            {**start, "format": ["ulaw"]},
            {**start, "format": None},
            {**start, "channel_id": 1.4},
            {**start, "channel_variables": "A=b"},
            {**start, "channel_variables": {"A": 1}},
            {**status, "queue_full": 1},
            {**status, "queue_full": "yes"},
            {"event": "DTMF_END", "digit": 5},
            {"event": "DTMF_END", "digit": None},
            {"event": "MEDIA_MARK_PROCESSED", "correlation_id": {}},
        ):
            with self.assertRaises(RemoteProtocolError, msg=str(fields)):
                decode_event(json.dumps(fields))
        self.assertRaises(RemoteProtocolError, decode_event, "MEDIA_START format:ulaw optimal_frame_size:many")
        self.assertRaises(RemoteProtocolError, decode_event, "STATUS queue_length:1 queue_full:1")

    def test_malformed(self) -> None:
        """What begins like JSON and is none, is no object, or is nested too deeply is refused."""
        deep = 100_000
        for text in (
            "{", "{}x", '{"event"}', '{"event":"MEDIA_XON",}', "{'event':'MEDIA_XON'}", '{"a":' + "9" * 5000 + "}",
            '{"event":' + "[" * deep + "]" * deep + "}",
            '{"event":' + '{"a":' * deep + "1" + "}" * deep + "}",
        ):  # fmt: skip
            self.assertRaises(RemoteProtocolError, decode_event, text)
            self.assertRaises(RemoteProtocolError, decode_command, text, JSON)
        for text in ("", "[]", '"ANSWER"', "null", "ANSWER", "[" * deep):
            self.assertRaises(RemoteProtocolError, decode_command, text, JSON)

    def test_nesting_near_the_limit(self) -> None:
        """At every depth of nesting a field is read or refused; there is none at which something else happens."""
        for depth in range(700, 1010):
            for opening, closing in (("[", "]"), ('{"a":', "}")):
                nested = opening * depth + "1" + closing * depth
                for text in (
                    f'{{"event":"DTMF_END","digit":{nested}}}',
                    f'{{"event":"X","channel_id":{nested}}}',
                    f'{{"event":"MEDIA_XON","more":{nested}}}',
                ):
                    try:
                        decode_event(text)
                    except RemoteProtocolError:
                        pass

    def test_round_trip_of_every_event(self) -> None:
        """Every event there is comes back from both forms as it went."""
        self.assertEqual(set(EVENT_STRATEGIES), set(EVENTS.values()), "an event without a strategy")
        for event_class, events in EVENT_STRATEGIES.items():
            self._round_trip(event_class, events)

    def _round_trip(self, event_class: type[Event], events: st.SearchStrategy[Event]) -> None:
        @given(events, st.sampled_from(ControlForm))
        def comes_back(event: Event, form: ControlForm) -> None:
            back, form_of_back = decode_event(encode_event(event, form))
            self.assertEqual((back, form_of_back, type(back)), (event, form, event_class))

        comes_back()

    @given(st.one_of(list(EVENT_STRATEGIES.values())), st.text(max_size=20), extra_fields())
    def test_round_trip_in_json(self, event: Event, channel_id: str, extra: dict[str, Any]) -> None:
        """JSON keeps any channel_id and any further fields, of every event."""
        fields = {name: value for name, value in vars(event).items() if name not in ("extra", "channel_id")}
        event = type(event)(**fields, channel_id=channel_id, extra=extra)
        self.assertEqual(decode_event(encode_event(event, JSON)), (event, JSON))

    @given(st.dictionaries(st.text(max_size=10), st.text(max_size=10)))
    def test_round_trip_of_variables(self, variables: dict[str, str]) -> None:
        """Channel variables of any name and value come back."""
        event = MediaStart(format="ulaw", optimal_frame_size=160, channel_variables=variables)
        self.assertEqual(decode_event(encode_event(event, JSON)), (event, JSON))

    @given(st.text())
    @example('{"event":"DTMF_END","digit":"\\ud800"}')
    @example("MEDIA_MARK_PROCESSED \x00")
    def test_any_text(self, text: str) -> None:
        """Any text whatever is an event or a RemoteProtocolError."""
        assert_event_or_refused(text)

    @given(st.sampled_from(sorted(EVENTS)), st.text(max_size=60))
    def test_any_text_after_a_name(self, name: str, rest: str) -> None:
        """So it is for a known name with anything after it."""
        assert_event_or_refused(f"{name} {rest}")
        assert_event_or_refused(f"{name} channel_id:{rest} digit:{rest} format:{rest} queue_length:{rest}")

    @given(json_values(), st.dictionaries(st.sampled_from(FIELD_NAMES), json_values()), st.sampled_from(sorted(EVENTS)))
    def test_any_json(self, value: Any, fields: dict[str, Any], name: str) -> None:
        """So it is for any JSON, and for known fields of any type."""
        for candidate in (value, fields, {**fields, "event": name}):
            assert_event_or_refused(json.dumps(candidate))


class CommandTests(SynchronousTestCase):
    """What the application says."""

    def test_plain(self) -> None:
        """Each command in the plain form, read and written."""
        self.assertEqual({type(command) for _, command in PLAIN_COMMANDS}, set(COMMANDS.values()) - {SetMediaDirection})
        for text, command in PLAIN_COMMANDS:
            self.assertEqual(decode_command(text, PLAIN), command)
            self.assertEqual(encode_command(command, PLAIN), text)

    def test_json(self) -> None:
        """Each command in JSON, read and written."""
        self.assertEqual({type(command) for _, command in JSON_COMMANDS}, set(COMMANDS.values()))
        for text, command in JSON_COMMANDS:
            self.assertEqual(decode_command(text, JSON), command)
            self.assertEqual(encode_command(command, JSON), text)

    def test_direction_needs_json(self) -> None:
        """SET_MEDIA_DIRECTION is not written in the plain form, where Asterisk answers it with an error."""
        self.assertRaises(LocalProtocolError, encode_command, SetMediaDirection("in"), PLAIN)
        self.assertEqual(decode_command("SET_MEDIA_DIRECTION in", PLAIN), SetMediaDirection("in"))

    def test_blanks_around(self) -> None:
        """Blanks around a command are taken off, as Asterisk does; one blank parts it from its argument."""
        self.assertEqual(decode_command(" MARK_MEDIA 1 \r\n", PLAIN), MarkMedia("1"))
        self.assertEqual(decode_command("MARK_MEDIA  1", PLAIN), MarkMedia(" 1"))
        self.assertEqual(decode_command(' {"command":"ANSWER"} ', JSON), Answer())

    def test_unknown(self) -> None:
        """An unknown command is reported with all of its text; lower case is unknown to Asterisk too."""
        for text, form in (
            ("DANCE", PLAIN), ("answer", PLAIN), ("ANSWER_NOW", PLAIN), ("", PLAIN), ('{"command":"ANSWER"}', PLAIN),
            ('{"command":"DANCE"}', JSON), ("{}", JSON), ('{"command":7}', JSON), ('{"command":["ANSWER"]}', JSON),
        ):  # fmt: skip
            self.assertEqual(decode_command(text, form), UnknownCommand(text))
            self.assertEqual(encode_command(UnknownCommand(text), form), text)

    def test_argument_that_is_no_text(self) -> None:
        """In JSON an argument that is no text counts as not said, as in Asterisk."""
        for value in ("17", "null", "{}", "[1]", "true"):
            self.assertEqual(decode_command(f'{{"command":"MARK_MEDIA","correlation_id":{value}}}', JSON), MarkMedia())
        self.assertEqual(decode_command('{"command":"SET_MEDIA_DIRECTION"}', JSON), SetMediaDirection(""))

    def test_longest(self) -> None:
        """A command of 128 bytes goes; a longer one, which Asterisk would ignore, is refused. Bytes count."""
        name = "x" * (MAX_COMMAND_BYTES - len("MARK_MEDIA "))
        self.assertEqual(len(encode_command(MarkMedia(name), PLAIN)), MAX_COMMAND_BYTES)
        self.assertRaises(LocalProtocolError, encode_command, MarkMedia(name + "x"), PLAIN)
        self.assertRaises(LocalProtocolError, encode_command, MarkMedia("ü" * (len(name) // 2 + 1)), PLAIN)
        self.assertRaises(LocalProtocolError, encode_command, MarkMedia(name), JSON)
        self.assertRaises(LocalProtocolError, encode_command, UnknownCommand("x" * 129), PLAIN)

    def test_round_trip_of_every_command(self) -> None:
        """Every command there is comes back from every form in which it exists."""
        self.assertEqual(set(COMMAND_STRATEGIES), set(COMMANDS.values()), "a command without a strategy")
        for command_class, commands in COMMAND_STRATEGIES.items():
            forms = [JSON] if command_class is SetMediaDirection else list(ControlForm)
            self._round_trip(commands, forms)

    def _round_trip(self, commands: st.SearchStrategy[Command], forms: list[ControlForm]) -> None:
        @given(commands, st.sampled_from(forms))
        def comes_back(command: Command, form: ControlForm) -> None:
            self.assertEqual(decode_command(encode_command(command, form), form), command)

        comes_back()

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Any text whatever is a command in the plain form, and a command or a RemoteProtocolError in JSON."""
        self.assertIsInstance(decode_command(text, PLAIN), Command)
        assert_command_or_refused(text)

    @given(json_values(), st.sampled_from(sorted(COMMANDS)))
    def test_any_json(self, value: Any, name: str) -> None:
        """So it is for any JSON, and for arguments of any type."""
        assert_command_or_refused(json.dumps(value))
        fields = {"command": name, "correlation_id": value, "direction": value}
        self.assertIsInstance(decode_command(json.dumps(fields), JSON), COMMANDS[name])


def assert_event_or_refused(text: str) -> None:
    """Nothing but a RemoteProtocolError comes out of it, and an event can be written again."""
    try:
        event, form = decode_event(text)
    except RemoteProtocolError:
        return
    assert isinstance(event, Event)
    assert isinstance(encode_event(event, form), str)


def assert_command_or_refused(text: str) -> None:
    """Nothing but a RemoteProtocolError comes out of it."""
    try:
        command = decode_command(text, JSON)
    except RemoteProtocolError:
        return
    assert isinstance(command, Command)
