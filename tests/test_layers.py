"""Who may know whom: the design's rule, held against the imports of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import rapida_twisted

PACKAGE = "rapida_twisted"
ROOT = Path(rapida_twisted.__file__).parent

LAYERS = (
    {"errors"},
    {"wire", "audio", "context", "net", "credentials"},
    {"settings", "interfaces"},
    {"observe"},
    {"media", "ports"},
    {"protocols", "store", "web", "asterisk", "webhook"},
    {"bridge"},
    {"assistants"},
    {"server", "testing"},
    {"tap"},
    {"tools"},
)
"""From left to right: a room imports rooms to its left, and none of its own layer but itself."""

ROOMS = {
    "asterisk": (
        {"ari", "asterisk_conf", "dialplan"},
        {"vault", "stasis", "doctor"},
        {"outbound"},
    ),
    "asterisk.ari": (
        {"credential", "errors", "replies"},
        {"http"},
        {"bridges", "events"},
        {"client"},
    ),
    "asterisk.outbound": (
        {"progress", "call_limiter"},
        {"call", "progress_writer"},
        {"reconciler"},
        {"trunk"},
        {"calls"},
    ),
    "asterisk.stasis": (
        {"call"},
        {"orphans", "transfer"},
        {"calls"},
    ),
    "bridge": (
        {"breaker", "fallback", "far_end", "registration_reply"},
        {"bridged_call", "far_end_audiosocket", "far_end_websocket", "placeholders", "register"},
        {"routes"},
    ),
    "tools": (
        {"api_key", "command_line", "terminal"},
        {"ctl", "phone"},
    ),
    "tools.ctl": (
        {"options"},
        {"running_server", "server_client"},
        {"calls", "dialplan", "doctor", "key", "vault"},
        {"dial"},
        {"main"},
    ),
    "tools.phone": (
        {"figures", "microphone", "record", "sound"},
        {"plan", "queue"},
        {"options", "report"},
        {"verdict"},
        {"call"},
        {"audiosocket_connection", "status_line", "websocket_connection"},
        {"phone"},
        {"main"},
    ),
    "web": (
        {"forwarded", "request_key"},
        {"responses", "websocket"},
        {"channel", "parameters", "request"},
        {"resource"},
        {"calls", "clock", "health", "metrics", "next_hop", "outbound", "registration", "server"},
        {"proxy", "site"},
    ),
}
"""The same order inside the large rooms."""

PURE = {"errors", "settings", "wire", "audio", "context"}
"""Without Twisted: what is in them can be used in a program without it."""


def modules() -> dict[str, Path]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join((PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return found


def imports_of(source: str, module: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """The full names of all modules that a module imports, anywhere in its text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: None if is_package and node.level == 1 else is_package - node.level]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in known or alias.name == "__version__" else base


@cache
def all_imports() -> dict[str, set[str]]:
    """What each module of the package imports."""
    paths = modules()
    return {
        module: set(imports_of(path.read_text("utf-8"), module, path.name == "__init__.py", set(paths)))
        for module, path in paths.items()
    }


def part_of(module: str) -> str:
    """The part of the house that a module belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def layer_of(part: str) -> int:
    """How far right a part stands."""
    if part == "__version__":
        return 0
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


class LayersTests(SynchronousTestCase):
    """The rule."""

    def setUp(self) -> None:
        self.imports = all_imports()
        self.own = {
            module: {name for name in imported if name.split(".")[0] == PACKAGE}
            for module, imported in self.imports.items()
        }

    def test_packages_are_listed(self) -> None:
        """setup.cfg names every package: one that it does not is not in the wheel."""
        listed = re.findall(
            r"^    (rapida_twisted[\w.]*)$", (ROOT.parent / "setup.cfg").read_text("utf-8"), re.MULTILINE
        )
        found = {".".join(path.parent.relative_to(ROOT.parent).parts) for path in ROOT.rglob("__init__.py")}
        self.assertEqual(set(listed), found)

    def test_every_part_has_its_place(self) -> None:
        """A part that is new has to be put into a layer, and one that is gone taken out."""
        parts = {part_of(module) for module in self.imports} - {""}
        self.assertEqual(parts, set().union(*LAYERS))
        self.assertEqual(sum(map(len, LAYERS)), len(parts))

    def test_left_never_imports_right(self) -> None:
        """A part imports itself and what stands to its left; those of one layer never import one another."""
        wrong = [
            f"{module} imports {name}"
            for module, imported in self.own.items()
            for name in sorted(imported)
            if (part := part_of(module))
            and part != part_of(name)
            and (not part_of(name) or layer_of(part_of(name)) >= layer_of(part))
        ]
        self.assertEqual(sorted(set(wrong)), [])

    def test_order_inside_the_large_rooms(self) -> None:
        """Inside a large room, too, left never imports right, nor its own layer; each module has a layer."""
        for room, layers in ROOMS.items():
            prefix = f"{PACKAGE}.{room}."
            inside = {module: module.removeprefix(prefix).split(".")[0] for module in self.own if prefix in module}
            self.assertEqual(set(inside.values()), set().union(*layers), room)
            self.assertEqual(sum(map(len, layers)), len(set(inside.values())), room)
            place = {part: number for number, layer in enumerate(layers) for part in layer}
            wrong = [
                f"{module} imports {name}"
                for module, part in inside.items()
                for name in sorted(self.own[module])
                if name in inside and inside[name] != part and place[inside[name]] >= place[part]
            ]
            self.assertEqual(wrong, [])

    def test_the_package_itself(self) -> None:
        """The package imports none of its parts before one of the public names is used."""
        body = ast.parse((ROOT / "__init__.py").read_text("utf-8")).body
        imported = {node.module for node in body if isinstance(node, ast.ImportFrom)}
        self.assertEqual(imported, {"__future__", "importlib", "typing"})

    def test_the_plugin(self) -> None:
        """The plugin knows the assistants that ship, and names the service by a string."""
        plugin = ROOT.parent / "twisted" / "plugins" / "rapida_media.py"
        imported = set(imports_of(plugin.read_text("utf-8"), "plugin", False, set(self.imports)))
        own = {name for name in imported if name.startswith(PACKAGE)}
        self.assertEqual({part_of(name) for name in own}, {"assistants"})

    def test_nothing_goes_in_circles(self) -> None:
        """No module imports, over whatever others, itself."""
        done: set[str] = set()

        def visit(module: str, way: tuple[str, ...]) -> None:
            self.assertNotIn(module, way)
            if module not in done:
                for name in self.own.get(module, ()):
                    visit(name, (*way, module))
                done.add(module)

        for module in self.own:
            visit(module, ())

    def test_pure_parts(self) -> None:
        """No module of the pure parts imports Twisted, or what stands on it; interfaces.py its Deferred alone."""
        for module, imported in self.imports.items():
            foreign = {name for name in imported if name.split(".")[0] in ("twisted", "autobahn", "treq", "klein")}
            if part_of(module) in PURE:
                self.assertEqual(foreign, set(), module)
            elif part_of(module) == "interfaces":
                self.assertLessEqual(foreign, {"twisted.internet.defer"})

    def test_no_global_reactor(self) -> None:
        """No module imports the reactor at its top level: whoever imports it has not chosen one yet."""
        for module, path in modules().items():
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    self.assertNotIn("reactor", [alias.name for alias in node.names], module)
                if isinstance(node, ast.Import):
                    self.assertNotIn("twisted.internet.reactor", [alias.name for alias in node.names], module)


class ReadingImportsTests(SynchronousTestCase):
    """The test's own eyes."""

    def test_all_kinds(self) -> None:
        """Plain, from, relative and late imports are seen, and a module is told from a name in it."""
        source = (
            "import a.b\nfrom rapida_twisted.web import keys, thing\nfrom . import aio\nfrom .site import x\n"
            "from ..media import call\ndef f():\n    from rapida_twisted import tap\n"
        )
        known = {
            "rapida_twisted.web.keys",
            "rapida_twisted.web.aio",
            "rapida_twisted.media.call",
            "rapida_twisted.tap",
        }
        seen = {
            "a.b",
            "rapida_twisted.web",
            "rapida_twisted.web.site",
            *known,
        }
        self.assertEqual(set(imports_of(source, "rapida_twisted.web.calls", False, known)), seen)
        self.assertEqual(set(imports_of(source, "rapida_twisted.web", True, known)), seen)

    def test_sees_this_package(self) -> None:
        """The modules are found, and so are imports that are known to be there."""
        paths = modules()
        self.assertIn("rapida_twisted.wire.audiosocket", paths)
        source = paths["rapida_twisted.server.components"].read_text("utf-8")
        imported = set(imports_of(source, "rapida_twisted.server.components", False, set(paths)))
        self.assertIn("rapida_twisted.server.reception", imported)
