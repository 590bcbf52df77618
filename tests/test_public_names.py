"""The package's public names, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import rapida_twisted

HEAVY = (
    "numpy",
    "soundfile",
    "samplerate",
    "treq",
    "OpenSSL",
    "cryptography",
    "autobahn",
    "prometheus_client",
    "twisted.web",
    "asyncio",
)

IMPORT_ALONE = "import rapida_twisted\n"
LIST_PLUGINS = """
from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin, getPlugins
import twisted.scripts.twistd
before = set(sys.modules)
from rapida_twisted.interfaces import IAssistantFactory
assert "rapida-media" in [plugin.tapname for plugin in getPlugins(IServiceMaker)]
names = {plugin.name: plugin.usage for plugin in getPlugins(IAssistantFactory)}
assert {"bridge", "echo", "greeter", "play", "record"} <= set(names), names
"""


def heavy_modules_of(script: str) -> list[str]:
    """Which heavy modules a script makes a fresh interpreter import; of a script with ``before``, since then."""
    report = f"print(*sorted(set({HEAVY!r}) & (sys.modules.keys() - before)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nbefore = set()\n{script}{report}"],
        cwd=Path(rapida_twisted.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout.split()


class PublicNamesTests(SynchronousTestCase):
    def test_each_resolves(self) -> None:
        """Every name of ``__all__`` is there, and ``dir()`` shows it."""
        for name in rapida_twisted.__all__:
            self.assertIsNotNone(getattr(rapida_twisted, name), name)
        self.assertLessEqual(set(rapida_twisted.__all__), set(dir(rapida_twisted)))

    def test_no_others(self) -> None:
        """Another name is an AttributeError, as of any module; a submodule can be imported nevertheless."""
        with self.assertRaisesRegex(AttributeError, "module 'rapida_twisted' has no attribute 'AudioSocketFactroy'"):
            rapida_twisted.AudioSocketFactroy  # type: ignore[attr-defined]  # noqa: B018
        from rapida_twisted import testing

        self.assertIs(testing.FakeCall, rapida_twisted.FakeCall)

    def test_type_checkers_see_the_same(self) -> None:
        """The imports for type checkers name what ``__all__`` does, and where it is."""
        tree = ast.parse(Path(rapida_twisted.__file__).read_text("utf-8"))
        (block,) = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
        seen = {
            alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        self.assertEqual({*seen, "__version__"}, set(rapida_twisted.__all__))
        for name, module in seen.items():
            self.assertIs(getattr(rapida_twisted, name), getattr(sys.modules[str(module)], name))


class LightTests(SynchronousTestCase):
    """What a fresh interpreter imports."""

    def test_package(self) -> None:
        """The package alone imports nothing heavy."""
        self.assertEqual(heavy_modules_of(IMPORT_ALONE), [])

    def test_plugins(self) -> None:
        """Listing plugins, as ``twistd --help`` does, imports nothing heavy beside what Twisted itself imports."""
        self.assertEqual(heavy_modules_of(LIST_PLUGINS), [])

    def test_what_is_heavy(self) -> None:
        """The test sees what is heavy."""
        self.assertIn("numpy", heavy_modules_of("import rapida_twisted\nrapida_twisted.FakeCall\n"))
