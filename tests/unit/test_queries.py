"""Named blocks of SQL: each is used, and what is used exists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import engine
from engine.store.queries import SHARED, load

ROOT = Path(engine.__file__).parent
FILES = sorted(path.stem for path in (ROOT / "store" / "sql").glob("*.sql"))


class Use(NamedTuple):
    """``load("store")["take_inbox"]``, or the same by the name that the loaded blocks were given."""

    file: str
    block: str
    place: str


def test_every_named_block_of_sql_is_used_and_every_used_one_exists() -> None:
    there = {(file, block) for file in FILES for block in load(file)}
    used = {(use.file, use.block): use.place for use in [*uses(), *uses_within_sql()]}
    assert there - used.keys() == set()
    assert {use: place for use, place in used.items() if use not in there} == {}


def uses_within_sql() -> Iterator[Use]:
    """The lines that stand for a shared block."""
    for path in sorted((ROOT / "store" / "sql").glob("*.sql")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if found := SHARED.fullmatch(line):
                yield Use("shared", found[1], f"{path.relative_to(ROOT)}:{number}")


def uses() -> Iterator[Use]:
    trees = {path: ast.parse(path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))}
    names = {path: dict(_given(tree)) for path, tree in trees.items()}
    modules = {_module(path): found for path, found in names.items()}
    for path, tree in trees.items():
        known = dict(names[path])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                given = modules[node.module]
                known |= {
                    alias.asname or alias.name: given[alias.name]
                    for alias in node.names
                    if alias.name in given
                }
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and (file := _file(node.value, known)):
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert isinstance(node.slice, ast.Constant), place
                yield Use(file, str(node.slice.value), place)


def _given(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The names of a module that hold the blocks of a file."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and (file := _file(node.value, {})):
            [target] = node.targets
            assert isinstance(target, ast.Name)
            yield target.id, file


def _file(node: ast.expr, known: dict[str, str]) -> str | None:
    """Whose blocks an expression is, if it is any."""
    match node:
        case ast.Name(id=name):
            return known.get(name)
        case ast.Call(func=ast.Name(id="load"), args=[ast.Constant(value=str(file))]) if file in FILES:
            return file
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="queries"), attr="load"),
            args=[ast.Constant(value=str(file))],
        ):
            return file
        case _:
            return None


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
