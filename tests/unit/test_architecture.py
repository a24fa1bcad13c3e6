"""A stranger finds the room of any line: the page on the architecture names every module of the three packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine"
PAGE = (ENGINE / "README.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]
MODULES = sorted(
    module.relative_to(ROOT)
    for package in ("engine", "connectors", "statemachines")
    for module in (ROOT / package).rglob("*.py")
    if not module.name.startswith("__")
)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_room_that_is_named_with_its_folder(module: Path) -> None:
    # What is directly in `engine` is named without it, as the page itself is there.
    folder = module.parent.as_posix().removeprefix("engine").removeprefix("/")
    named = [row for row in ROWS if f"`{module.name}`" in row or f"/{module.name}`" in row]
    assert [row for row in named if not folder or f"`{folder}/" in row], (
        f"engine/README.md has no room for {module}"
    )


def test_the_tests_that_it_names_are_there() -> None:
    named = re.findall(r"`(tests/\w+/\w+\.py)::(\w+)`", PAGE)
    assert named
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text("utf-8"), f"{file} has no {test}"


def test_no_room_is_of_a_module_that_there_is_not() -> None:
    names = {module.name for module in MODULES} | {"__init__.py", "*.py"}
    for row in ROWS:
        for named in row.split("`")[1::2]:
            if named.endswith(".py"):
                assert named.rpartition("/")[2] in names, row
