"""Which commands wait for their tokens to be known, and how many."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from engine.commands import unheard
from engine.commands.unheard import UnheardOf
from engine.store.values import Command

SECONDS = 10.0


def completion(number: int, **said: Any) -> Command:
    """By a run, with a token that is not known."""
    body = orjson.dumps({"key": "l1", "token": f"t{number}", **said})
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Command(number, 1, "complete", body, "the run 'l1'", "on told 'e1'", at, awaits_token=True)


def look(waits: UnheardOf, *commands: Command, now: float = 0.0, is_cut: bool = False) -> list[int]:
    """What may be taken of these, as the store tells which there are."""
    left_out = waits.waiting(now)
    found = [one for one in commands if not one.awaits_token or one.id not in left_out]
    return [one.id for one in waits.but_waiting(found, is_cut=is_cut, now=now)]


def test_each_waits_for_its_token_for_so_long() -> None:
    waits = UnheardOf(SECONDS)
    first, second = completion(1), completion(2)
    assert look(waits, first, now=0.0) == []
    assert look(waits, first, second, now=9.0) == []
    assert waits.waiting(9.5) == [1, 2]
    assert look(waits, first, second, now=10.0) == [1]
    assert look(waits, second, now=19.0) == [2]


def test_one_whose_token_is_known_by_then_is_taken_in_its_place() -> None:
    waits = UnheardOf(SECONDS)
    first, second = completion(1), completion(2)
    assert look(waits, first, second) == []
    assert look(waits, first._replace(awaits_token=False), second, completion(3)) == [1]
    assert waits.waiting(0.0) == [2, 3]


def test_what_others_say_of_steps_waits_for_nothing() -> None:
    waits = UnheardOf(SECONDS)
    assert look(waits, completion(1, execution=[1, 2, 0, "review", 1])) == [1]


def test_one_that_has_waited_waits_no_more_until_it_is_taken() -> None:
    waits = UnheardOf(SECONDS)
    several = [completion(number) for number in range(1, 5)]
    assert look(waits, *several) == []
    assert look(waits, *several[:2], now=10.0, is_cut=True) == [1, 2]
    assert look(waits, *several[1:], now=10.0) == [2, 3, 4]
    assert waits.waiting(10.0) == []


def test_of_what_is_taken_or_gone_nothing_is_kept() -> None:
    waits = UnheardOf(SECONDS)
    assert look(waits, *map(completion, range(1, 5))) == []
    assert look(waits, completion(2), now=10.0, is_cut=True) == [2]
    assert (waits._since, waits._over) == ({}, {2, 3, 4})
    assert look(waits, now=10.0) == []
    assert (waits._since, waits._over) == ({}, set())


def test_where_very_many_wait_those_that_have_waited_longest_wait_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unheard, "WAITING_MAX", 3)
    waits = UnheardOf(SECONDS)
    several = [completion(number) for number in range(1, 6)]
    assert look(waits, *several[:2]) == []
    assert look(waits, *several, now=1.0) == []
    assert waits.waiting(1.0) == [3, 4, 5]
    assert look(waits, *several, now=1.0) == [1, 2]
