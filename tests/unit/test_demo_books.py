"""The demo finds what would be wrong in the books of the others."""

from __future__ import annotations

import pytest

from engine.demo.books import audit
from statemachines.shipped.outside import Entry


def entry(service: str, who: str, key: str, answer: str = "done") -> Entry:
    return Entry(0, 0.0, service, who, key, "", answer)


RIGHT = [
    entry("charge", "o-1", "a"),
    entry("charge", "o-1", "a"),
    entry("ship", "o-1", "b"),
    entry("charge", "o-2", "c"),
    entry("refund", "o-2", "d"),
    entry("charge", "o-3", "e", ""),
]
STATES = {"o-1": "delivered", "o-2": "lost", "o-3": "refused"}


def test_what_was_done_is_counted_by_keys() -> None:
    books = audit(RIGHT, STATES)
    assert books.are_right
    assert (books.calls, books.refused, books.again) == (6, 1, 1)
    assert books.done == {"charge": 2, "refund": 1, "reserve": 0, "release": 0, "ship": 1}


@pytest.mark.parametrize(
    ("more", "states", "found"),
    [
        ([entry("charge", "o-1", "z")], {}, (["o-1"], [], [])),
        ([entry("charge", "o-3", "z")], {}, ([], ["o-3"], [])),
        ([entry("refund", "o-1", "z")], {}, ([], [], ["o-1"])),
        ([], {"o-1": "cancelled"}, ([], ["o-1"], [])),
        ([], {"o-2": "under_way"}, ([], [], ["o-2"])),
    ],
)
def test_what_is_wrong_is_named(
    more: list[Entry], states: dict[str, str], found: tuple[list[str], list[str], list[str]]
) -> None:
    books = audit([*RIGHT, *more], STATES | states)
    assert (books.twice, books.not_given_back, books.given_back) == found
    assert not books.are_right
