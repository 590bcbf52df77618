"""An Asterisk's ARI on the loopback interface that does as told: channels in a dict, scripted answers, and events.

Without a script it behaves: it checks the password, makes, shows and removes channels, and lets clients subscribe.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IDelayedCall, IReactorTCP, IReactorTime
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from rapida_twisted.asterisk.ari.credential import AriCredential

USER, PASSWORD = "rapida", "s3cret-pässword"
VERSION = "22.10.1"


@dataclass(frozen=True)
class Answer:
    """How a request is answered."""

    status: int = 200
    body: Any = None
    """Sent as JSON, or as it is if it is bytes."""
    after_s: float = 0.0
    does: bool = False
    """Whether the request is carried out before; without a ``body``, the answer is then the honest one."""
    does_after_s: float | None = None
    """Carried out only so much later, whatever is answered now."""
    lost: bool = False
    """The connection is dropped instead of an answer."""
    hangs: bool = False
    """Nothing is ever answered; with a ``body``, that is sent as a beginning without end."""
    headers: Mapping[str, str] | None = None


LOST = Answer(lost=True)
LOST_BUT_DONE = Answer(lost=True, does=True)
HANGS = Answer(hangs=True)
ALLOCATION_FAILED = Answer(500, {"error": "Allocation failed"})


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    """Below ``/ari/``, unquoted."""
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    uri: str


def channel(channel_id: str, state: str = "Down", **changes: Any) -> dict[str, Any]:
    """A channel's JSON, as Asterisk 22 writes it."""
    return {
        "id": channel_id,
        "name": "PJSIP/trunk-00000006",
        "state": state,
        "protocol_id": "a",
        "caller": {"name": "", "number": "100"},
        "connected": {"name": "", "number": "200"},
        "accountcode": "",
        "dialplan": {"context": "rapida-outbound", "exten": "s", "priority": 1, "app_name": "AppDial2", "app_data": ""},
        "creationtime": "2025-01-31T12:00:00.123+0000",
        "language": "en",
        **changes,
    }


class ScriptedAri(Resource):
    """The Asterisk. Make it in a test of ``twisted.trial.unittest.TestCase``, ``await start()``, ``await stop()``."""

    isLeaf = False

    def __init__(self, user: str = USER, password: str = PASSWORD) -> None:
        super().__init__()
        self.user, self.password = user, password
        self.asked: list[Asked] = []
        self.channels: dict[str, dict[str, Any]] = {}
        self.variables: dict[str, dict[str, str]] = {}
        self.bridges: dict[str, dict[str, Any]] = {}
        self.on_stasis: Callable[[dict[str, Any]], None] = lambda event: None
        """Called with what happens to channels in applications, as events tell it."""
        self.on_asked: Callable[[Asked], None] = lambda asked: None
        """Called with each request as it comes."""
        self.hung_up: list[tuple[str, str]] = []
        """The id of each channel that was hung up by request, and the reason given."""
        self.modules: dict[str, str] = {"res_ari.so": "Running", "chan_websocket.so": "Running"}
        self.default: Answer | None = None
        """How everything is answered that has no script of its own."""
        self.refuse_events = 0
        """The status with which handshakes are refused from now on."""
        self.subscribers: list[_EventsSocket] = []
        self.subscriptions: list[Mapping[str, str]] = []
        """The query of each handshake that succeeded."""
        self._scripts: dict[tuple[str, str], list[Answer]] = {}
        self._waiting: list[IDelayedCall] = []
        self._factory = _EventsFactory(self)
        self._connections = WrappingFactory(Site(self))
        self._connections.noisy = self._connections.wrappedFactory.noisy = False
        self.port = 0

    # Its life

    async def start(self, port: int = 0) -> None:
        """Listen, on any free port if none is given."""
        assert IReactorTCP.providedBy(reactor)
        endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
        self._listening = await endpoint.listen(self._connections)
        self.port = self._listening.getHost().port

    async def stop(self) -> None:
        """Listen no more, and drop whoever is connected."""
        await maybeDeferred(self._listening.stopListening)
        for waiting in self._waiting:
            if waiting.active():
                waiting.cancel()
        while self._connections.protocols:
            for connection in list(self._connections.protocols):
                connection.transport.abortConnection()
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]

    def credential(self, **changes: str) -> AriCredential:
        """A good credential for it."""
        values = {
            "name": "office",
            "ari_url": f"http://127.0.0.1:{self.port}",
            "ari_user": self.user,
            "ari_password": self.password,
            "trunk": "trunk",
        }
        return AriCredential(**{**values, **changes})

    # Its script

    def script(self, method: str, path: str, *answers: Answer) -> None:
        """Give these answers in turn to a method and path, and after them behave again."""
        self._scripts.setdefault((method, path), []).extend(answers)

    def requests(self, method: str, path: str = "") -> list[Asked]:
        """What was asked with this method, below this path."""
        return [asked for asked in self.asked if asked.method == method and asked.path.startswith(path)]

    # Its Stasis applications

    def enter(self, channel_id: str, app: str, *args: str, state: str = "Up", **changes: Any) -> dict[str, Any]:
        """Have a channel come into an application; gives the event that tells of it."""
        place = {"context": "in", "exten": "100", "priority": 1, "app_name": "Stasis"}
        place["app_data"] = ",".join([app, *args])
        self.channels[channel_id] = channel(channel_id, state, dialplan=place, **changes)
        return {"type": "StasisStart", "application": app, "args": list(args), "channel": self.channels[channel_id]}

    def destroy(self, channel_id: str) -> None:
        """Have a channel end."""
        self.leave(channel_id)
        self.on_stasis({"type": "ChannelDestroyed", "cause": 16, "channel": self.channels.pop(channel_id)})

    def is_in_application(self, channel_id: str) -> bool:
        """Whether a channel is in an application."""
        return channel_id in self.channels and self.channels[channel_id]["dialplan"]["app_name"] == "Stasis"

    def leave(self, channel_id: str, **place: Any) -> None:
        """Have a channel leave its application and its bridge, if it is in one."""
        if self.is_in_application(channel_id):
            dialplan = self.channels[channel_id]["dialplan"]
            app = dialplan["app_data"].partition(",")[0]
            dialplan.update(app_name="Wait", app_data="60", **place)
            self.on_stasis({"type": "StasisEnd", "application": app, "channel": self.channels[channel_id]})
        for bridge in self.bridges.values():
            bridge["channels"] = [inside for inside in bridge["channels"] if inside != channel_id]

    # Its events

    def tell(self, *events: Mapping[str, Any] | bytes) -> None:
        """Send events to each subscriber; bytes go as they are, as text messages."""
        for event in events:
            payload = event if isinstance(event, bytes) else json.dumps(event).encode()
            for subscriber in list(self.subscribers):
                subscriber.sendMessage(payload)

    def drop_subscribers(self) -> None:
        """Drop the events' connections, without a word."""
        for subscriber in list(self.subscribers):
            subscriber.transport.abortConnection()

    # Answering

    def is_authorized(self, header: str) -> bool:
        """Whether this is the right user and password."""
        return header == "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()

    def getChild(self, path: bytes, request: Request) -> Resource:
        if b"/".join([path, *request.postpath]) == b"ari/events":
            request.postpath.clear()
            return WebSocketResource(self._factory)
        request.postpath.clear()
        return _Leaf(self)

    def answer(self, request: Request) -> None:
        """Answer a request as scripted."""
        uri = request.uri.decode()
        split = urlsplit(uri)
        content = request.content.read()
        asked = Asked(
            request.method.decode(),
            unquote(split.path).removeprefix("/ari/"),
            {key: values[0] for key, values in parse_qs(split.query, keep_blank_values=True).items()},
            json.loads(content) if content else None,
            {key.decode().lower(): values[0].decode() for key, values in request.requestHeaders.getAllRawHeaders()},
            uri,
        )
        self.asked.append(asked)
        self.on_asked(asked)
        if not self.is_authorized(asked.headers.get("authorization", "")):
            self._send(request, 401, {"message": "Authentication required"})
            return
        script = self._scripts.get((asked.method, asked.path))
        answer = script.pop(0) if script else self.default or Answer(does=True)
        if answer.does_after_s is not None:
            self._later(answer.does_after_s, self._behave, asked)
        honest = self._behave(asked) if answer.does else (answer.status, None)
        if answer.after_s:
            self._later(answer.after_s, self._give, request, answer, honest)
        else:
            self._give(request, answer, honest)

    def _later(self, delay_s: float, call: Callable[..., Any], *arguments: Any) -> None:
        assert IReactorTime.providedBy(reactor)
        self._waiting.append(reactor.callLater(delay_s, call, *arguments))

    def _give(self, request: Request, answer: Answer, honest: tuple[int, Any]) -> None:
        if answer.lost:
            request.channel.transport.abortConnection()
            return
        for name, value in (answer.headers or {}).items():
            request.setHeader(name, value)
        if answer.hangs:
            if answer.body is not None:
                request.setResponseCode(answer.status)
                request.write(answer.body)
            return
        status, body = honest if answer.does and answer.body is None else (answer.status, answer.body)
        self._send(request, status, body)

    def _send(self, request: Request, status: int, body: Any) -> None:
        if request._disconnected:
            return
        request.setResponseCode(status)
        request.write(body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode())
        request.finish()

    # Behaving

    def _behave(self, asked: Asked) -> tuple[int, Any]:
        words = asked.path.split("/")
        if words[0] == "asterisk":
            return self._tell_of_itself(words[1])
        if words[0] == "bridges":
            return self._bridge(asked, *words[1:])
        if words[0] == "applications":
            return self._application(words[1])
        if asked.path in ("channels", "channels/externalMedia"):
            return self._make(asked) if asked.method == "POST" else (200, list(self.channels.values()))
        found = self.channels.get(words[1])
        if found is None:
            what = "Provided channel was not found" if words[2:] == ["variable"] else "Channel not found"
            return 404, {"message": what}
        if asked.method == "DELETE":
            self.destroy(words[1])
            self.hung_up.append((words[1], asked.query.get("reason", "")))
            return 204, None
        if words[2:] == ["answer"]:
            found["state"] = "Up"
        if words[2:] == ["continue"]:
            query = asked.query
            self.leave(words[1], **({"context": query["context"], "exten": query["extension"]} if query else {}))
        if words[2:] == ["variable"]:
            return self._variable(asked, words[1])
        return (204, None) if asked.method == "POST" else (200, found)

    def _make(self, asked: Asked) -> tuple[int, Any]:
        channel_id = asked.query["channelId"]
        if channel_id in self.channels:
            return 409, {"message": "Channel with given unique ID already exists"}
        if asked.query.get("encapsulation") == "audiosocket":
            self.on_stasis(self.enter(channel_id, asked.query["app"], asked.query["data"]))
        else:
            self.channels[channel_id] = channel(channel_id)
        self.variables[channel_id] = dict((asked.body or {}).get("variables", {}))
        return 200, self.channels[channel_id]

    def _bridge(self, asked: Asked, bridge_id: str = "", action: str = "") -> tuple[int, Any]:
        if not bridge_id:
            return 200, list(self.bridges.values())
        if asked.method == "POST" and not action:
            if bridge_id in self.bridges:
                return 409, {"message": f"Bridge with id '{bridge_id}' already exists"}
            self.bridges[bridge_id] = {"id": bridge_id, "name": asked.query["name"], "channels": []}
            return 200, self.bridges[bridge_id]
        if bridge_id not in self.bridges:
            return 404, {"message": "Bridge not found"}
        if asked.method == "DELETE":
            del self.bridges[bridge_id]
            return 204, None
        for channel_id in asked.query["channel"].split(","):
            if channel_id not in self.channels:
                return 400, {"message": "Channel not found"}
            if not self.is_in_application(channel_id):
                return 422, {"message": "Channel not in Stasis application"}
            if channel_id not in self.bridges[bridge_id]["channels"]:
                self.bridges[bridge_id]["channels"].append(channel_id)
        return 204, None

    def _application(self, app: str) -> tuple[int, Any]:
        if not any(query["app"] == app for query in self.subscriptions):
            return 404, {"message": "Application not found"}
        return 200, {"name": app, "channel_ids": [], "bridge_ids": [], "endpoint_ids": [], "device_names": []}

    def _variable(self, asked: Asked, channel_id: str) -> tuple[int, Any]:
        variables = self.variables.setdefault(channel_id, {})
        if asked.method == "POST":
            variables[asked.body["variable"]] = asked.body["value"]
            return 204, None
        name = asked.query["variable"]
        if name not in variables:
            return 404, {"message": "Provided variable was not found"}
        return 200, {"value": variables[name]}

    def _tell_of_itself(self, what: str) -> tuple[int, Any]:
        if what == "modules":
            return 200, [{"name": name, "status": status} for name, status in self.modules.items()]
        if what == "ping":
            return 200, {"asterisk_id": "x", "ping": "pong", "timestamp": "2025-01-31T12:00:00.500+0000"}
        return 200, {
            "system": {"version": VERSION, "entity_id": "x"},
            "status": {"startup_time": "2025-01-31T11:00:00.000+0000"},
        }


class _Leaf(Resource):
    isLeaf = True

    def __init__(self, ari: ScriptedAri) -> None:
        super().__init__()
        self._ari = ari

    def render(self, request: Request) -> int:
        """Whatever the method."""
        # Nobody waits for it: a client that goes away is no error.
        request.notifyFinish().addErrback(lambda _: None)
        self._ari.answer(request)
        return NOT_DONE_YET


class _EventsSocket(WebSocketServerProtocol):
    factory: _EventsFactory

    def onConnect(self, request: ConnectionRequest) -> str:
        ari = self.factory.ari
        if ari.refuse_events:
            raise ConnectionDeny(ari.refuse_events, "Not now")
        if not ari.is_authorized(request.headers.get("authorization", "")):
            raise ConnectionDeny(401, "Unauthorized")
        if request.protocols != ["ari"]:
            raise ConnectionDeny(400, "the subprotocol must be ari")
        self._query = {key: values[0] for key, values in request.params.items()}
        return "ari"

    def onOpen(self) -> None:
        ari = self.factory.ari
        ari.subscriptions.append(self._query)
        ari.subscribers.append(self)

    def onClose(self, was_clean: bool, code: int | None, reason: str | None) -> None:
        if self in self.factory.ari.subscribers:
            self.factory.ari.subscribers.remove(self)


class _EventsFactory(WebSocketServerFactory):
    protocol = _EventsSocket

    def __init__(self, ari: ScriptedAri) -> None:
        super().__init__(protocols=["ari"], reactor=reactor)
        self.ari = ari


async def until(found: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait until a function gives something.

    :raises AssertionError: it did not in time.
    """
    for _ in range(int(timeout_s / 0.01)):
        if found():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it did not come")


def sleep(seconds: float) -> Deferred[None]:
    """Wait, in real time."""
    return deferLater(reactor, seconds)
