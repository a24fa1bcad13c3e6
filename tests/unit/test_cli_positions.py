"""Whose positions are set."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from engine.reading import PositionSet
from tests.cli import pointsman

SET = ("positions", "set", "orders", "0", "5", "--reason", "a test")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The groups whose positions were set."""
    groups: list[str | None] = []

    def ask_store(_: Mapping[str, str | None], question: Callable[[Any, str], Awaitable[object]]) -> object:
        return asyncio.run(question(None, "default"))  # type: ignore[arg-type]  # it is a coroutine

    async def set_positions(*_: object, group: str | None, **__: object) -> list[PositionSet]:
        groups.append(group)
        return [PositionSet(str(group), "cluster", "orders", 0, 3, 5, 1)]

    monkeypatch.setattr("engine.cli.decisions.ask_store", ask_store)
    monkeypatch.setattr("engine.reading.set_positions", set_positions)
    return groups


def test_the_group_is_that_of_the_option_or_the_variable_or_else_the_only_one(
    asked: list[str | None],
) -> None:
    assert pointsman(*SET, on={"GROUP": "others"}).out.startswith("orders/0 of others goes on at 5")
    assert pointsman(*SET, "--group", "mine", on={"GROUP": "others"}).code == 0
    assert pointsman(*SET).code == 0
    assert asked == ["others", "mine", None]
    assert "default: pointsman" not in pointsman("positions", "set", "--help").out


def test_an_empty_group_is_refused(asked: list[str | None]) -> None:
    done = pointsman(*SET, "--group", "")
    assert (done.code, done.err) == (2, "--group is ''; it cannot be empty: say which, or leave it out.\n")
    assert asked == []
