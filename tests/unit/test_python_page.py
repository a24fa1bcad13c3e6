"""What the page on Python says is true: it has all that is public, where it is imported from, and its tests pass."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import engine
import engine.client
from connectors import publisher
from connectors.publisher import Publisher, Receipt
from engine.answered import Answered
from engine.client import Client, RunView
from statemachines.testkit import Case, given
from tests.fenced import blocks

PAGE = Path(engine.__file__).with_name("python.md")
TEXT = PAGE.read_text("utf-8")
README = PAGE.parents[1] / "README.md"
NAMED = re.compile(r"`(\w+)(\()?.*?`")


def first_cells(title: str) -> list[tuple[str, bool]]:
    """What the first cells of the tables of a section name, and whether as something that is called."""
    section = f"\n{TEXT}".partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    return [(name, bool(called)) for cell in cells for name, called in NAMED.findall(cell)]


def check(title: str, members: set[str]) -> None:
    """A section has all of these, and shows nothing as called that is not there."""
    cells = first_cells(title)
    assert members <= {name for name, _ in cells}
    assert {name for name, called in cells if called} <= members


def public(one: object) -> set[str]:
    return {name for name in dir(one) if not name.startswith("_")}


def orders() -> types.ModuleType:
    """The pipeline that the README begins with."""
    module = types.ModuleType("orders")
    code = blocks(README.read_text("utf-8"), "python")[0]
    exec(compile(code, "README.md", "exec"), vars(module))
    return module


def test_all_that_is_public_has_its_row() -> None:
    check("Publisher", public(Publisher) | {one for one in publisher.__all__ if one.endswith("Error")})
    of_steps = {"StillWaitsError", "TooLateError"}
    errors = {one for one in engine.client.__all__ if one.endswith("Error")} - of_steps - {"PointsmanError"}
    check("Client", public(Client) | errors)
    assert all(f"`{one}`" in TEXT for one in {"PointsmanError", *of_steps})
    check("Test kit", public(given(orders().flow)) - {"machine"})


@pytest.mark.parametrize(
    ("title", "owner"), [("Publisher", Publisher), ("Client", Client), ("Test kit", Case)]
)
def test_what_is_called_takes_what_it_says(title: str, owner: type) -> None:
    section = f"\n{TEXT}".partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    shown = [one for cell in cells for one in re.findall(r"`(\w+)\(([^`]*)\)`", cell)]
    assert shown
    for name, listed in shown:
        named = {re.sub(r"[=*].*", "", one.strip().lstrip("*")) for one in listed.split(",")} - {"", "..."}
        taken = set(inspect.signature(getattr(owner, name)).parameters) - {"self"}
        assert named == taken or listed == "...", (name, taken ^ named)


def test_what_is_answered_has_the_fields_that_it_says() -> None:
    assert {f"`{one}`" for one in Receipt._fields} <= set(re.findall(r"`\w+`", TEXT))
    named = {name for name, _ in first_cells("Client")}
    assert public(RunView) - {"as_json", "namespace", "memory"} <= named
    assert public(Answered) - {"as_json", "done", "failed"} <= named


def test_each_name_is_imported_from_where_it_says() -> None:
    for line in TEXT.partition("\n## ")[0].splitlines():
        names, _, module = line.partition(" | ")
        if line.startswith("| `"):
            found = importlib.import_module(module.strip(" |`"))
            assert all(hasattr(found, name) for name, _ in NAMED.findall(names)), line
    for one in (publisher, engine.client):
        assert all(hasattr(one, name) for name in one.__all__)


def test_the_tests_that_it_shows_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orders", orders())
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(blocks(TEXT, "python")[2], "engine/python.md", "exec"), names)
    tests = [one for name, one in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()
