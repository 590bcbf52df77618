"""From the words of the command line to assistants, and what is said about words that can't be used."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from uuid import uuid4

from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from rapida_twisted.assistants import registry
from rapida_twisted.assistants.echo import Echo
from rapida_twisted.assistants.greeter import Greeter
from rapida_twisted.assistants.record import Record
from rapida_twisted.assistants.registry import Assistants, known_factories, parse_assistant, parse_rules
from rapida_twisted.context import CallContext
from rapida_twisted.errors import SettingsError
from rapida_twisted.interfaces import AssistantEnvironment, IAssistant, IAssistantFactory
from rapida_twisted.media.assistant import Assistant
from tests.assistants.calls import CONTEXT

BOTS = """
from rapida_twisted import Assistant

class Plain(Assistant):
    pass

class WithContext(Assistant):
    def __init__(self, context):
        self.context = context

class PerhapsContext(Assistant):
    def __init__(self, context=None, volume=3):
        self.context = context

class Options(Assistant):
    def __init__(self, volume=3):
        self.volume = volume

class TooMuch(Assistant):
    def __init__(self, context, volume):
        pass

class NoAssistant:
    async def answer(self, call):
        pass

def a_function(context):
    return WithContext(context)

def without():
    return Plain()

number = 3
"""


def context_for(assistant_id: str) -> CallContext:
    """A call for this id."""
    return CallContext(context_id=str(uuid4()), assistant_id=assistant_id, created_at=0.0, expires_at=300.0)


@implementer(IPlugin, IAssistantFactory)
class WeatherFactory:
    """Somebody's plugin."""

    name = "weather"
    usage = "weather:CITY  says the weather"

    def __init__(self) -> None:
        self.configured: list[tuple[str, AssistantEnvironment]] = []

    def configure(self, argument, environment):  # type: ignore[no-untyped-def]
        self.configured.append((argument, environment))
        return lambda context: Assistant()


class RegistryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.environment = AssistantEnvironment(Clock(), Path(self.mktemp()))
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.folder)
        self.patch(sys, "path", [entry for entry in sys.path if entry])

    def write_module(self, text: str) -> str:
        """A module in the current directory; its name, which no other has."""
        name = f"bots_{uuid4().hex}"
        (self.folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        self.addCleanup(sys.modules.pop, name, None)
        return name

    def made(self, words: str) -> IAssistant:
        """What these words make for one call."""
        return parse_assistant(words, self.environment)(CONTEXT)

    def assert_refused(self, words: str, why: str) -> None:
        """These words are refused in one sentence that repeats them."""
        error = self.assertRaises(SettingsError, parse_assistant, words, self.environment)
        self.assertIn(words, str(error))
        self.assertRegex(str(error), why)
        self.assertNotIn("\n", str(error))


class KnownTests(RegistryTestCase):
    def test_ours(self) -> None:
        """The assistants that ship are found, and are what the interface asks for."""
        factories = known_factories()
        self.assertLessEqual({"echo", "greeter", "play", "record"}, set(factories))
        for name, factory in factories.items():
            verifyObject(IAssistantFactory, factory)
            self.assertEqual(factory.name, name)
            self.assertRegex(factory.usage, rf"^{name}\b.*  \S")

    def test_what_they_make(self) -> None:
        """What they make has all that the interface asks for."""
        for words, made_class in (("echo", Echo), ("greeter", Greeter), ("record:echo", Record), ("echo:", Echo)):
            made = self.made(words)
            self.assertIsInstance(made, made_class)
            verifyObject(IAssistant, made)

    def test_plugin(self) -> None:
        """A plugin's assistant is found by its name, and is given its argument with its colons, and the environment."""
        weather = WeatherFactory()
        self.patch(registry, "getPlugins", lambda interface: [weather])
        self.made("weather:Berlin:Mitte")
        ((argument, environment),) = weather.configured
        self.assertEqual((argument, environment.reactor), ("Berlin:Mitte", self.environment.reactor))
        self.assert_refused("wether:Berlin", "known by name are weather")

    def test_own_settings(self) -> None:
        """A factory gets its own group of settings and no other; so does an assistant that it wraps."""
        weather, sport = WeatherFactory(), WeatherFactory()
        sport.name = "sport"
        self.patch(registry, "getPlugins", lambda interface: [weather, sport])
        parse_rules("*=weather:a,1=sport:b", self.environment, {"weather": "sunny", "bridge": "secret"})
        self.assertEqual(weather.configured[0][1].settings, "sunny")
        self.assertIsNone(sport.configured[0][1].settings)
        sport.configured[0][1].assistant("weather:c")
        self.assertEqual([(made[0], made[1].settings) for made in weather.configured], [("a", "sunny"), ("c", "sunny")])

    def test_without_a_server(self) -> None:
        """What only a server offers is refused in a sentence where there is none; counting does nothing."""
        self.environment.counters.upstream("1", "register", "ok")
        self.environment.add_resource("x", None)
        for offered in (self.environment.http_client, lambda: self.environment.assistant("echo")):
            self.assertRaises(SettingsError, offered)

    def test_unknown(self) -> None:
        """An unknown name is refused, and the known ones are listed."""
        self.assert_refused("nosuch", "not known; known are bridge, echo, greeter, play, record.* module:Class")
        for words in ("", "a b", "Greeter", "bots:", "mod:Class:more"):
            self.assert_refused(words, "not known; known are")

    def test_no_argument(self) -> None:
        """Those that take no argument say so."""
        self.assertRaises(SettingsError, parse_assistant, "echo:loud", self.environment)
        self.assertRaises(SettingsError, parse_assistant, "greeter:hello", self.environment)


class OwnTests(RegistryTestCase):
    def test_class_and_function(self) -> None:
        """A class or a function of a module in the current directory makes one assistant for each call."""
        module = self.write_module(BOTS)
        for name in ("Plain", "WithContext", "PerhapsContext", "Options", "a_function", "without"):
            make = parse_assistant(f"{module}:{name}", self.environment)
            first, second = make(CONTEXT), make(CONTEXT)
            verifyObject(IAssistant, first)
            self.assertIsNot(first, second)

    def test_context(self) -> None:
        """Who takes the context is given it, and whose parameters are something else is left alone."""
        module = self.write_module(BOTS)
        for name in ("WithContext", "PerhapsContext", "a_function"):
            self.assertIs(getattr(self.made(f"{module}:{name}"), "context", None), CONTEXT, name)
        self.assertEqual(getattr(self.made(f"{module}:Options"), "volume", None), 3)

    def test_in_a_package(self) -> None:
        """The module may be inside a package."""
        package = self.folder / f"package_{uuid4().hex}"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "bots.py").write_text(BOTS)
        importlib.invalidate_caches()
        self.assertEqual(type(self.made(f"{package.name}.bots:Plain")).__name__, "Plain")

    def test_refused(self) -> None:
        """What is not there, is no assistant, or can't be made, is refused at the start."""
        module = self.write_module(BOTS)
        self.assert_refused(f"{module}:Nobody", f"module {module} has no Nobody")
        self.assert_refused(f"{module}:number", "no class and no function")
        self.assert_refused(f"{module}:NoAssistant", r"has no audio_received\(\): derive it from rapida_twisted")
        self.assert_refused(f"{module}:TooMuch", "called with the call's context or with nothing.*'volume'")

    def test_import_fails(self) -> None:
        """A module that is not there, or fails, is told with its own error and the known names."""
        self.assert_refused("nosuch_module:Bot", "ModuleNotFoundError: No module named 'nosuch_module' .known by name")
        for text, why in (
            ("import os\nos.nothing_of_this_name", "AttributeError: module 'os' has no attribute"),
            ("1 / 0", "ZeroDivisionError"),
            ("def (:", "SyntaxError"),
            ("import sys\nsys.exit('not as a module')", "SystemExit: not as a module"),
        ):
            self.assert_refused(self.write_module(text) + ":Bot", f"can't be imported: {why}")


class RulesTests(RegistryTestCase):
    def who(self, assistants: Assistants, assistant_id: str) -> type:
        """The class of who answers this id."""
        return type(assistants.make(context_for(assistant_id)))

    def test_ids(self) -> None:
        """Each id has its assistant, and ``*`` is all others."""
        assistants = parse_rules(["*=greeter", "123=echo", " 456 = record:echo "], self.environment)
        self.assertEqual(assistants.ids, ("*", "123", "456"))
        self.assertEqual([self.who(assistants, name) for name in ("123", "456", "789")], [Echo, Record, Greeter])
        self.assertTrue(assistants.knows("789"))

    def test_without_others(self) -> None:
        """Without ``*`` an id that was not named is not known; ``*`` itself never is."""
        assistants = parse_rules(["123=echo"], self.environment)
        self.assertTrue(assistants.knows("123"))
        self.assertFalse(assistants.knows("124"))
        self.assertFalse(assistants.knows("*"))
        self.assertRaises(SettingsError, assistants.make, context_for("124"))
        self.assertFalse(parse_rules(["*=echo"], self.environment).knows("*"))

    def test_one_text(self) -> None:
        """Several rules may come as one text with commas."""
        assistants = parse_rules("*=greeter,123=echo", self.environment)
        self.assertEqual([self.who(assistants, name) for name in ("123", "1")], [Echo, Greeter])

    def test_equals_sign_in_the_argument(self) -> None:
        """Only the first equals sign divides a rule."""
        error = self.assertRaises(SettingsError, parse_rules, ["123=play:/a=b.wav"], self.environment)
        self.assertIn("'/a=b.wav'", str(error))

    def test_refused(self) -> None:
        """A rule that is none, an id named twice, and no rule at all are refused in a sentence."""
        for rules, why in (
            (["greeter"], "'greeter' can't be used: it must be ID=NAME"),
            (["=greeter"], "ID=NAME"),
            (["123="], "ID=NAME"),
            (["123=echo", "123=greeter"], "names the id '123' twice"),
            ([], "nobody answers"),
            ("", "ID=NAME"),
        ):
            error = self.assertRaises(SettingsError, parse_rules, rules, self.environment)
            self.assertRegex(str(error), why)
