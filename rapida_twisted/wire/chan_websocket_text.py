"""Encodes and decodes chan_websocket's control messages, as plain text and as JSON.

A plain-text message is a name, then ``name:value`` pairs or one argument. A channel's first event, MEDIA_START, shows
its form; commands use the same form (Asterisk: ``channels/chan_websocket.c``). No I/O, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields as fields_of
from types import MappingProxyType
from typing import Any

from rapida_twisted.errors import LocalProtocolError, RemoteProtocolError
from rapida_twisted.wire import chan_websocket as wire

__all__ = ["decode_command", "decode_event", "encode_command", "encode_event"]

_ARGUMENT_EVENTS = (wire.MediaBufferingCompleted, wire.MediaMarkProcessed)
"""Their plain-text form has one argument instead of pairs, and no channel_id."""
_BARE_EVENTS = (wire.MediaXoff, wire.MediaXon, wire.QueueDrained)
"""Their plain-text form is the name alone."""


def decode_event(text: str) -> tuple[wire.Event, wire.ControlForm]:
    """Decode an event from Asterisk; returns its form, too.

    :raises RemoteProtocolError: the text has neither form, or a known event lacks a required field.
    """
    if text.startswith("{"):
        fields = _json_object(text)
        return _event(_text_or_empty(fields.pop("event", "")), fields, text), wire.ControlForm.JSON
    name, _, rest = text.strip().partition(" ")
    if wire.EVENTS.get(name) in _ARGUMENT_EVENTS:
        return _event(name, {"correlation_id": rest}, text), wire.ControlForm.PLAIN
    return _event(name, _plain_fields(rest), text), wire.ControlForm.PLAIN


def encode_event(event: wire.Event, form: wire.ControlForm) -> str:
    """Encode an event as Asterisk does."""
    fields = {name: value for name, value in vars(event).items() if name != "extra"} | dict(event.extra)
    if isinstance(event, wire.UnknownEvent):
        return event.text
    if form is wire.ControlForm.JSON:
        if isinstance(event, wire.MediaStart):
            fields["channel_variables"] = dict(event.channel_variables)
        return json.dumps({"event": event.NAME, **fields}, separators=(",", ":"))
    if isinstance(event, _BARE_EVENTS):
        return event.NAME
    if isinstance(event, _ARGUMENT_EVENTS):
        return f"{event.NAME} {fields['correlation_id']}".rstrip()
    fields.pop("channel_variables", None)
    # error_text may contain spaces, so it is the last field.
    fields = {name: fields[name] for name in sorted(fields, key="error_text".__eq__)}
    return " ".join([event.NAME, *(f"{name}:{_plain_value(value)}" for name, value in fields.items())])


def decode_command(text: str, form: wire.ControlForm) -> wire.Command:
    """Decode a command from the application.

    :raises RemoteProtocolError: in the JSON form, the text is no JSON object.
    """
    if form is wire.ControlForm.JSON:
        fields = _json_object(text)
        kind = wire.COMMANDS.get(_text_or_empty(fields.get("command")))
        argument = _text_or_empty(fields.get(kind.ARGUMENT)) if kind is not None else ""
    else:
        name, _, argument = text.strip().partition(" ")
        kind = wire.COMMANDS.get(name)
    if kind is None:
        return wire.UnknownCommand(text)
    return kind(argument) if kind.ARGUMENT else kind()  # type: ignore[call-arg]


def encode_command(command: wire.Command, form: wire.ControlForm) -> str:
    """Encode a command.

    :raises LocalProtocolError: Asterisk would ignore it: it is too long, or does not exist in this form.
    """
    argument = getattr(command, command.ARGUMENT) if command.ARGUMENT else ""
    if isinstance(command, wire.UnknownCommand):
        text = command.text
    elif form is wire.ControlForm.JSON:
        fields = {"command": command.NAME} | ({command.ARGUMENT: argument} if argument else {})
        text = json.dumps(fields, separators=(",", ":"))
    elif isinstance(command, wire.SetMediaDirection):
        raise LocalProtocolError("SET_MEDIA_DIRECTION exists in the JSON form only: dial with f(json)")
    else:
        text = f"{command.NAME} {argument}".rstrip()
    if len(text.encode()) > wire.MAX_COMMAND_BYTES:
        raise LocalProtocolError(f"Asterisk ignores a command of over {wire.MAX_COMMAND_BYTES} bytes: {text[:40]}...")
    return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a control message is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RemoteProtocolError("a control message is no JSON object")
    return fields


def _plain_fields(text: str) -> dict[str, Any]:
    """Parse ``name:value`` pairs. The value of error_text extends to the end."""
    fields: dict[str, Any] = {}
    text, has_error, error_text = text.partition("error_text:")
    for pair in text.split():
        name, colon, value = pair.partition(":")
        if colon:
            fields[name] = value
    if has_error:
        fields["error_text"] = error_text
    return fields


def _plain_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _event(name: str, fields: dict[str, Any], text: str) -> wire.Event:
    """The event with this name, its fields converted to their types."""
    kind = wire.EVENTS.get(name)
    if kind is None:
        return wire.UnknownEvent(name=name, text=text, channel_id=_text_or_empty(fields.get("channel_id")))
    known: dict[str, Any] = {}
    try:
        for field_name, convert in _FIELDS[kind].items():
            if field_name in fields:
                known[field_name] = convert(fields.pop(field_name))
        return kind(**known, extra=MappingProxyType(fields) if fields else wire.nothing())
    except (TypeError, ValueError) as error:
        raise RemoteProtocolError(f"a {name} event is invalid: {error}") from None


def _text_or_empty(value: Any) -> str:
    """The text; empty for any other type, which Asterisk ignores."""
    return value if isinstance(value, str) else ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} is no text")
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"a {type(value).__name__} is no number")
    return int(value)


def _flag(value: Any) -> bool:
    if value is True or value == "true":
        return True
    if value is False or value == "false":
        return False
    raise ValueError("a flag is neither true nor false")


def _variables(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("channel_variables is no object")
    return MappingProxyType({name: _text(content) for name, content in value.items()})


_CONVERTERS = {"str": _text, "int": _number, "bool": _flag, "Mapping[str, str]": _variables}
_FIELDS: dict[type[wire.Event], dict[str, Any]] = {
    kind: {item.name: _CONVERTERS[str(item.type)] for item in fields_of(kind) if item.name != "extra"}
    for kind in wire.EVENTS.values()
}
"""The converter of each field of each event."""
