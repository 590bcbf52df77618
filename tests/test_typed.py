"""The interfaces, as those see them who run a type checker without a plugin."""

from __future__ import annotations

import ast
import inspect
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interfaces import IMethod

from rapida_twisted import interfaces
from rapida_twisted.interfaces import typed

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"

WRONG = """
from rapida_twisted import Assistant, AudioSocketFactory, Call, FakeCall

class Wrong(Assistant):
    async def answer(self, call: Call) -> None:
        await call.play("x.wav")
        await call.play(5)
        call.say("x")

FakeCall("nobody")
"""
FOUND = (
    ("7", 'Argument 1 to "play" of "Call" has incompatible type "int"'),
    ("8", '"Call" has no attribute "say"'),
    ("10", 'Argument 1 to "FakeCall" has incompatible type "str"; expected "Assistant"'),
)


class ProtocolsTests(SynchronousTestCase):
    def test_written_from_the_interfaces(self) -> None:
        """The module is what script/protocols makes of the interfaces: run it after a change."""
        made = runpy.run_path(str(ROOT / "script" / "protocols"))["protocols"]()
        kept = ast.parse(Path(typed.__file__).read_text("utf-8"))
        self.assertEqual(ast.unparse(kept), ast.unparse(ast.parse(ast.unparse(made))))

    def test_same_names_and_parameters(self) -> None:
        """Each protocol has what its interface has."""
        for name in typed.__all__:
            protocol, interface = getattr(typed, name), getattr(interfaces, f"I{name}")
            members = {found for found in dir(protocol) if not found.startswith("_")}
            self.assertEqual(members, set(interface.names(all=True)), name)
            for member in members:
                described = interface[member]
                if not IMethod.providedBy(described):
                    self.assertIsInstance(getattr(protocol, member), property)
                    continue
                given = inspect.signature(getattr(protocol, member)).parameters
                positional = [key for key, found in given.items() if found.kind is not found.KEYWORD_ONLY]
                self.assertEqual(tuple(positional[1:]), described.getSignatureInfo()["positional"], (name, member))


class PlainMypyTests(SynchronousTestCase):
    """mypy without its plugin for zope."""

    if find_spec("mypy") is None:
        skip = "mypy is not installed"

    def check(self, *files: Path) -> str:
        """What it says of these files."""
        config = Path(self.mktemp()).absolute()
        config.write_text(
            "[mypy]\nplugins =\nfollow_imports = silent\nstrict = True\n"
            "disallow_subclassing_any = False\ndisallow_untyped_calls = False\n"
        )
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "mypy",
                "--config-file",
                config,
                "--cache-dir",
                ROOT / ".mypy_cache" / "plain",
                *files,
            ],
            cwd=EXAMPLES,
            env={"MYPYPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.stdout + done.stderr

    def test_examples(self) -> None:
        """A user's assistant, its plugin and its test are accepted, strictly; what is wrong is reported."""
        wrong = Path(self.mktemp()).absolute().with_suffix(".py")
        wrong.write_text(WRONG)
        names = ("support_bot", "test_support_bot", "menu_bot", "test_menu_bot", "weather_plugin")
        right = [EXAMPLES / f"{name}.py" for name in names]
        report = self.check(*right, wrong).splitlines()
        self.assertEqual(len(report), len(FOUND) + 1, "\n".join(report))
        for line, (number, text) in zip(report, FOUND, strict=False):
            self.assertIn(f"{wrong.name}:{number}: error: {text}", line)
