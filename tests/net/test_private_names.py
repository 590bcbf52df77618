"""Twisted's and Autobahn's private names: those of one module are there, and no other module has any."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

import rapida_twisted
from rapida_twisted.net import private_names

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ROOT = Path(rapida_twisted.__file__).parent
THEIRS = ("twisted.", "autobahn.", "treq.", "txredisapi.", "zope.")


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


class PrivateNamesTests(SynchronousTestCase):
    """What another version of a dependency may not have."""

    def test_classes(self) -> None:
        """Each class has the names that are used."""
        for path, names in private_names.PRIVATE.items():
            for name in names:
                self.assertTrue(hasattr(namedAny(path), name), f"{path}.{name} is gone: see net/private_names.py")

    def test_autobahn_state(self) -> None:
        """Each connection of Autobahn's has the attributes that are used, once it is open."""
        factory = WebSocketServerFactory(reactor=Clock())
        protocol = WebSocketServerProtocol()
        protocol.factory = factory
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(HANDSHAKE)
        self.assertEqual(protocol.state, protocol.STATE_OPEN)
        for name in private_names.AUTOBAHN_STATE:
            self.assertTrue(hasattr(protocol, name), f"Autobahn's connections have no {name}: see net/private_names.py")

    def test_one_module_imports_them(self) -> None:
        """No other module imports a private name or from a private module."""
        for path in ROOT.rglob("*.py"):
            if path == Path(private_names.__file__):
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(THEIRS):
                    names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                    self.assertEqual([name for name in names if is_private(name)], [], path)

    def test_one_module_uses_them(self) -> None:
        """No other class uses or overrides a private name of a base class that is not ours."""
        for path in ROOT.rglob("*.py"):
            module = import_module(".".join(("rapida_twisted", *path.relative_to(ROOT).with_suffix("").parts)))
            tree = ast.parse(path.read_text("utf-8"))
            for node in ast.walk(tree):
                found = vars(module).get(node.name) if isinstance(node, ast.ClassDef) else None
                if module is not private_names and inspect.isclass(found):
                    self.assertEqual(self.used(found, node) & self.theirs(found), set(), found)

    def theirs(self, kind: type) -> set[str]:
        """Private names of the bases that are neither ours nor Python's."""
        bases = [base for base in kind.__mro__ if base.__module__.startswith(THEIRS)]
        # A logger is documented to be replaced; _abc_impl is what Python's abc gives each class.
        return {name for base in bases for name in vars(base) if is_private(name)} - {"_log", "_abc_impl"}

    def used(self, kind: type, node: ast.AST) -> set[str]:
        """Private names that a class has itself, or that stand in its methods."""
        names = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        return {name for name in names | set(vars(kind)) if is_private(name)}
