"""Search attributes: what is made of a context, what a person asks for, and the identity of a definition."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest

from statemachines.canonical import canonical_bytes
from statemachines.machine import compile_pipeline
from statemachines.search import (
    VALUE_CHARACTERS_MAX,
    VALUES_MAX,
    Kind,
    asked_as,
    attributes_of,
    combined,
    kinds_of,
)
from tests.tickets import Everything, Team, plain_tickets, tickets


def attributes(**values: Any) -> dict[str, Any]:
    context = Everything(**values)
    return attributes_of(kinds_of(Everything), context.model_dump_json(by_alias=True).encode())


def test_attributes_are_the_values_of_the_context_without_those_that_are_not_there() -> None:
    east = timezone(timedelta(hours=2))
    found = attributes(
        text="acme",
        number=10**30,
        urgent=True,
        price=Decimal("1.50"),
        due=date(2026, 3, 1),
        since=datetime(2026, 3, 1, 14, tzinfo=east),
        team=Team.FIRST,
        mood="good",
        tags=["a", "b", "a"],
        **{"as": "renamed"},
    )
    assert found == {
        "text": "acme",
        "number": 10**30,
        "urgent": True,
        "price": "1.5",
        "due": "2026-03-01",
        "since": "2026-03-01T12:00:00Z",
        "team": "first line",
        "mood": "good",
        "tags": ["a", "b"],
        "as": "renamed",
    }
    assert attributes() == {"text": "", "number": 0, "urgent": False, "as": ""}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("text", "acme", "acme"),
        ("texts", "a", ["a"]),
        ("integer", "-3", -3),
        ("integer", "three", None),
        ("integer", "9" * 5_000, None),
        ("boolean", "True", True),
        ("boolean", "yes", None),
        ("decimal", "1.50", "1.5"),
        ("decimal", "100", "100"),
        ("decimal", "-0.00", "0"),
        ("decimal", "1E+1000000", "1E+1000000"),
        ("decimal", "NaN", None),
        ("decimal", "much", None),
        ("date", "2026-03-01", "2026-03-01"),
        ("date", "today", None),
        ("datetime", "2026-03-01T14:00:00+02:00", "2026-03-01T12:00:00Z"),
        ("datetime", "2026-03-01T12:00:00", "2026-03-01T12:00:00Z"),
    ],
)
def test_what_is_asked_for_has_the_form_that_attributes_have(kind: Kind, text: str, value: Any) -> None:
    assert asked_as(kind, text) == value


def test_equal_decimals_and_times_are_one_value_however_they_are_written() -> None:
    for price in ("1.5", "1.50", "15E-1"):
        assert attributes(price=Decimal(price))["price"] == asked_as("decimal", "1.500")
    naive, aware = datetime(2026, 3, 1, 12), datetime(2026, 3, 1, 12, tzinfo=UTC)  # noqa: DTZ001 - the case
    assert attributes(since=naive) == attributes(since=aware)


def test_a_long_value_is_cut_and_told_from_others_that_begin_alike() -> None:
    long = "x" * VALUE_CHARACTERS_MAX
    cut = attributes(text=long + "1")["text"]
    assert cut.startswith(long + "...")
    assert len(cut) < VALUE_CHARACTERS_MAX + 30
    assert cut == asked_as("text", long + "1") != asked_as("text", long + "2")
    assert attributes(text=long)["text"] == long


def test_a_list_has_a_limited_number_of_entries() -> None:
    assert len(attributes(tags=[str(number) for number in range(VALUES_MAX + 5)])["tags"]) == VALUES_MAX


def test_what_no_text_of_the_store_may_have_is_escaped_in_the_same_way_on_both_sides() -> None:
    assert attributes(text="a\0b")["text"] == asked_as("text", "a\0b") == "a\\x00b"
    assert asked_as("text", "a\ud800") == "a\\ud800"


def test_what_is_not_of_its_kind_has_no_entry() -> None:
    kinds: dict[str, Kind] = {"a": "integer", "b": "text", "c": "boolean", "d": "texts", "e": "date"}
    assert attributes_of(kinds, b'{"a": true, "b": 5, "c": 1, "d": "x", "e": "today"}') == {}
    with pytest.raises(ValueError, match="no JSON object"):
        attributes_of(kinds, b"[]")


def test_conditions_come_together_in_every_way_that_can_be() -> None:
    assert combined([[("tags", ["a"])], [("tags", ["b"])], [("n", 1), ("n", "1")]]) == [
        {"tags": ["a", "b"], "n": 1},
        {"tags": ["a", "b"], "n": "1"},
    ]
    assert combined([[("n", 1)], [("n", 2)]]) == []
    assert combined([[("n", 1)], [("n", 1)]]) == [{"n": 1}]


def test_the_structure_of_a_definition_names_attributes_only_where_there_are_some() -> None:
    assert orjson.loads(canonical_bytes(tickets()))["searchable"] == {
        "tenant": "text",
        "priority": "integer",
        "tags": "texts",
    }
    assert "searchable" not in orjson.loads(canonical_bytes(plain_tickets()))
    assert compile_pipeline(plain_tickets()).searchable == {}
