"""Which code a function reaches in the modules of its own package, found by reading their source.

A name leads to the statements of its module that bind it; an import leads on into the module that it names,
if that belongs to the same package. Two modules belong to one package if their names begin alike, or if
neither is in a package and both lie in one folder. This package is nobody's own: a new version of it
changes no one's code.

A step, a state or a pipeline that is named counts by its name alone: what it is stands in the structure, and what a
step does is not done again. Only where a function calls a step, or reads its settings, or what a state or a pipeline is
described as, that counts. A step that is handed to a helper counts by its name, whatever that does with it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from statemachines.definition import Pipeline, State
from statemachines.source import NOBODYS, bindings, imports_within, names_used, tree_of_file
from statemachines.step import Step
from statemachines.syntax import encode

_SHIPPED = "statemachines.shipped."
DottedName = tuple[str, ...]
Part = Step[Any, Any] | State[Any] | Pipeline[Any]
"""Of a machine."""
_OF_NAMES = frozenset({"name", "done", "failed", "timed_out", "failed_with"})
"""What may follow a step that counts by its name: its name, and the classes of how it ends."""
_OF_THEMSELVES = "description"
"""What states and pipelines have that is in no structure."""


class Module(NamedTuple):
    """A module whose source can be read."""

    name: str
    package: str
    file: str
    tree: ast.Module
    variables: dict[str, Any]


class Helper(NamedTuple):
    """A statement that is reached, under the name that leads to it, as bytes."""

    module: str
    name: str
    code: bytes


def is_nobodys(name: str) -> bool:
    """Whether a module is of this product, and of none of the pipelines that come with it."""
    return name.partition(".")[0] in NOBODYS and not name.startswith(_SHIPPED)


def module_of(variables: dict[str, Any]) -> Module | None:
    """The module with these global variables; None where there is no source, or it is of this product."""
    file, name = variables.get("__file__"), str(variables.get("__name__"))
    if is_nobodys(name):
        return None
    tree = tree_of_file(file, variables) if isinstance(file, str) else None
    if tree is None or not isinstance(file, str):
        return None
    return Module(name, variables.get("__package__") or "", file, tree, variables)


def called(one: Part) -> str:
    """What a part of the machine counts as."""
    return f"named({one.name})"


class Reach:
    """Collects the helpers that some trees lead to, each once."""

    def __init__(self) -> None:
        self.helpers: set[Helper] = set()
        self._seen: set[tuple[str, DottedName]] = set()
        self._ahead: list[tuple[Module, DottedName]] = []

    def follow(self, module: Module, nodes: list[Any]) -> None:
        """Collect all that these trees of a module lead to."""
        self._note(module, nodes)
        while self._ahead:
            module, path = self._ahead.pop()
            if (module.name, path) not in self._seen:
                self._seen.add((module.name, path))
                self._look_up(module, path)

    def _note(self, module: Module, nodes: list[Any]) -> None:
        within = imports_within(nodes)
        for path in names_used(nodes):
            self._ahead.append((module, path))
            for statement in within:
                self._through_import(module, statement, path)

    def _look_up(self, module: Module, path: DottedName) -> None:
        value = module.variables.get(path[0])
        if _counts_by_its_name(value, path[1:]):
            self.helpers.add(Helper(module.name, path[0], called(value).encode()))
            return
        found = bindings(module.tree, path[0])
        for statement in found:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self._through_import(module, statement, path)
            else:
                self.helpers.add(Helper(module.name, path[0], encode(statement)))
                self._note(module, [statement])
        for statement in () if found else module.tree.body:
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
                self._enter(module, _absolute(module, statement), path)

    def _through_import(
        self, module: Module, statement: ast.Import | ast.ImportFrom, path: DottedName
    ) -> None:
        for alias in statement.names:
            if isinstance(statement, ast.ImportFrom):
                bound, name = alias.asname or alias.name, f"{_absolute(module, statement)}.{alias.name}"
            elif alias.asname:
                bound, name = alias.asname, alias.name
            else:
                bound = name = alias.name.partition(".")[0]
            if bound == path[0]:
                source, _, last = name.rpartition(".")
                inside = self._enter(module, source, (last, *path[1:])) if source else False
                if not inside and not self._enter(module, name, path[1:]):
                    self.helpers.add(Helper("", bound, name.encode()))
                elif alias.asname:
                    self.helpers.add(Helper(module.name, bound, alias.name.encode()))

    def _enter(self, module: Module, name: str, path: DottedName) -> bool:
        """Go on with ``path`` in the module ``name``, if it is of the same package."""
        while path and f"{name}.{path[0]}" in sys.modules:
            name, path = f"{name}.{path[0]}", path[1:]
        loaded = sys.modules.get(name)
        source = module_of(vars(loaded)) if loaded is not None and _is_own(module, loaded) else None
        if source is None:
            return False
        if path:
            self._ahead.append((source, path))
        return True


def _counts_by_its_name(value: Any, then: DottedName) -> TypeGuard[Part]:
    """Whether it does not matter what this is, in a function that goes on with ``then`` from it."""
    if isinstance(value, Step):
        return not then or then[0] in _OF_NAMES
    return type(value) in (State, Pipeline) and then[:1] != (_OF_THEMSELVES,)


def _absolute(module: Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parts = module.package.split(".")
    base = parts[: len(parts) - statement.level + 1]
    return ".".join([*base, statement.module] if statement.module else base)


def _is_own(module: Module, loaded: Any) -> bool:
    name, package = str(loaded.__name__), getattr(loaded, "__package__", "") or ""
    if is_nobodys(name) or name.startswith(_SHIPPED):
        return name.startswith(_SHIPPED) and module.name.startswith(_SHIPPED)
    if package or module.package:
        return name.partition(".")[0] == module.name.partition(".")[0]
    return Path(getattr(loaded, "__file__", None) or "").parent == Path(module.file).parent
