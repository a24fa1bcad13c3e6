"""How commands end by which a person decides of dead letters."""

from __future__ import annotations

import pytest

from engine.reading import Asked, Became
from tests.cli import pointsman


@pytest.mark.parametrize(("is_refused", "code"), [(False, 0), (True, 1)])
@pytest.mark.parametrize("command", ["redrive", "drop"])
def test_what_was_left_alone_is_done_where_it_is_as_was_asked(
    command: str, is_refused: bool, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Asked(command, (), ((3, "it is dropped already"),), is_refused), list[Became]()
    monkeypatch.setattr("engine.cli.dead_letters.ask_store", lambda *_: found)
    done = pointsman("dead-letters", command, 3)
    assert (done.code, done.out) == (code, "3: left alone, it is dropped already\n")
