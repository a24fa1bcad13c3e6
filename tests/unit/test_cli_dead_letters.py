"""How commands end by which a person decides of dead letters."""

from __future__ import annotations

import pytest

from engine.reading import Asked, Became
from tests.cli import pointsman

REDRIVEN = "it is redriven already, and is dead letter 9 now"
DROPPED = "it is dropped already"
UNKNOWN = "there is no such dead letter"
NEEDED = "it holds a run that is being undone"


@pytest.mark.parametrize(
    ("command", "left_alone", "code"),
    [
        ("redrive", REDRIVEN, 0),
        ("redrive", DROPPED, 1),
        ("redrive", "it is resolved already", 1),
        ("redrive", UNKNOWN, 1),
        ("drop", DROPPED, 0),
        ("drop", REDRIVEN, 1),
        ("drop", NEEDED, 1),
    ],
)
def test_what_was_left_alone_is_done_where_it_is_as_was_asked(
    command: str, left_alone: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Asked(command, (), ((3, left_alone),)), list[Became]()
    monkeypatch.setattr("engine.cli.dead_letters.ask_store", lambda *_: found)
    done = pointsman("dead-letters", command, 3)
    assert (done.code, done.out) == (code, f"3: left alone, {left_alone}\n")
