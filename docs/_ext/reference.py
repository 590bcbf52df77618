"""What autodoc lacks for this package: zope interfaces, and references by their last name.

``.. interface:: rapida_twisted.interfaces.call.ICall`` documents an interface with its attributes and methods, and
with the name of a module each interface in it. Their annotations come from the source, for an interface keeps none.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

INDENT = "   "


class InterfaceDirective(SphinxDirective):
    """Makes a ``py:class`` of an interface, or of each interface of a module, and reads its members from the source."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of the interfaces."""
        module_name, _, name = self.arguments[0].rpartition(".")
        if not name[:1].isupper():
            module_name, name = self.arguments[0], ""
        module = importlib.import_module(module_name)
        self.env.note_dependency(inspect.getsourcefile(module) or "")
        lines: list[str] = []
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef) and (node.name == name or (not name and re.match("I[A-Z]", node.name))):
                lines += _interface(module_name, node)
        return self.parse_text_to_nodes(StringList(lines, source=self.arguments[0]))


def _interface(module_name: str, definition: ast.ClassDef) -> list[str]:
    """The lines that document an interface."""
    lines = ["", f".. py:class:: {definition.name}", f"{INDENT}:module: {module_name}", ""]
    lines += _indented(_docstring(definition))
    bases = [ast.unparse(base) for base in definition.bases if ast.unparse(base) != "Interface"]
    if bases:
        lines += ["", f"{INDENT}Extends " + ", ".join(f":class:`{base}`" for base in bases) + "."]
    for part in definition.body:
        lines += ["", *_indented("\n".join(_member(part)))]
    return lines


def _docstring(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _indented(text: str) -> list[str]:
    return [f"{INDENT}{line}" if line else "" for line in text.splitlines()]


def _member(part: ast.stmt) -> list[str]:
    """The lines of an attribute or a method; none for anything else."""
    if isinstance(part, ast.AnnAssign) and isinstance(part.value, ast.Call):
        text = ast.literal_eval(part.value.args[0])
        return [
            f".. py:attribute:: {ast.unparse(part.target)}",
            f"{INDENT}:type: {ast.unparse(part.annotation)}",
            "",
            *_indented(text),
        ]
    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
        result = f" -> {ast.unparse(part.returns)}" if part.returns else ""
        coroutine = [f"{INDENT}:async:"] if isinstance(part, ast.AsyncFunctionDef) else []
        head = f".. py:method:: {part.name}({ast.unparse(part.args)}){result}"
        return [head, *coroutine, "", *_indented(_docstring(part))]
    return []


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """A reference to a name that exactly one documented object has, wherever it is written or re-exported.

    A typing Protocol leads to the interface from which it is made: ``Call`` to ``ICall``.
    """
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"])
    if interface := re.match(r"<InterfaceClass ([\w.]+)>", target):
        content = nodes.literal("", content.astext().replace(interface[0], interface[1].rpartition(".")[2]))
        target = interface[1]
    last = target.rpartition(".")[2]
    typed = target.startswith("rapida_twisted.interfaces.typed.") or target == last
    domain = env.domains.python_domain
    for name in [last, f"I{last}"] if typed else [last]:
        found = [
            full for full, entry in domain.objects.items() if full.rpartition(".")[2] == name and not entry.aliased
        ]
        if len(found) == 1:
            return domain.resolve_xref(
                env,
                node["refdoc"],
                app.builder,
                node.get("reftype", "obj"),
                found[0],
                _typed_as(node, domain, found[0]),
                content,
            )
    return None


def _typed_as(node: pending_xref, domain: Any, full_name: str) -> pending_xref:
    """The reference, as one to an object of any kind and by its full name."""
    copy = node.copy()
    copy["reftype"] = "obj"
    copy["reftarget"] = full_name
    copy["refspecific"] = False
    return copy


def plain_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """An interface in a signature is written by its name alone."""

    return _plain(signature), _plain(returns)


def _plain(text: str | None) -> str | None:
    if text is None:
        return None
    unquoted = re.sub(r": '([^']+)'(?=[ =,)])", r": \1", text)  # autodoc quotes what it cannot evaluate
    return re.sub(r"<InterfaceClass ([\w.]+)>", r"\1", unquoted).replace("<factory>", "...")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("interface", InterfaceDirective)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", plain_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
