"""Event classes: their types, their keys, and the key of the run that data belongs to."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationError

from statemachines import Event
from statemachines.events import Address, Envelope
from statemachines.keys import how_keyed, key_of


class Keyed(Event, type="keyed", key="order_id"):
    order_id: str


class Aliased(Event, type="aliased", key="order_id"):
    order_id: str = Field(alias="orderId")


class Unkeyed(Event, type="unkeyed"):
    id: str = ""


def test_a_class_knows_its_type_key_and_place() -> None:
    assert (Keyed.event_type(), Keyed.event_key()) == ("keyed", "order_id")
    assert Keyed.event_place().file == __file__
    assert Event.event_type() == ""


def test_a_subclass_inherits_what_it_does_not_name() -> None:
    class Narrower(Keyed, type="narrower"):
        more: int = 0

    assert (Narrower.event_type(), Narrower.event_key()) == ("narrower", "order_id")
    assert key_of(how_keyed(Narrower), {"order_id": "o-1"}, None) == "o-1"


@pytest.mark.parametrize(
    "name", ["order.paid", "Confirmation of receipt", "T02 Check - x", "", "5", "ünï", "nul\0"]
)
def test_a_class_may_be_made_for_any_type(name: str) -> None:
    made = Event.named(name, key=None)
    assert made.event_type() == name
    assert issubclass(made, Event)
    assert made.event_place().file == __file__


def test_a_class_may_be_made_from_one_with_fields() -> None:
    made = Keyed.named("other", key="order_id")
    assert made(order_id="o-1").order_id == "o-1"


@pytest.mark.parametrize(
    ("event", "data", "otherwise", "key"),
    [
        (Keyed, {"order_id": "o-1"}, "kafka", "o-1"),
        (Keyed, {"order_id": 17}, "kafka", "17"),
        (Keyed, {"order_id": 10**30}, None, "1" + "0" * 30),
        (Keyed, {"order_id": ""}, "kafka", None),
        (Keyed, {"order_id": None}, "kafka", None),
        (Keyed, {"order_id": True}, "kafka", None),
        (Keyed, {"order_id": 1.5}, "kafka", None),
        (Keyed, {"order_id": ["o-1"]}, "kafka", None),
        (Keyed, {}, "kafka", None),
        (Keyed, None, "kafka", None),
        (Keyed, ["order_id"], "kafka", None),
        (Aliased, {"orderId": "o-1"}, "kafka", "o-1"),
        (Aliased, {"order_id": "o-1"}, "kafka", None),
        (Unkeyed, {"id": "x"}, "kafka", "kafka"),
        (Unkeyed, {"id": "x"}, None, None),
    ],
)
def test_the_key_is_read_from_the_field_that_the_class_names(
    event: type[Event], data: Any, otherwise: str | None, key: str | None
) -> None:
    assert key_of(how_keyed(event), data, otherwise) == key


def test_events_are_frozen_and_ignore_fields_that_they_do_not_know() -> None:
    event = Keyed.model_validate({"order_id": "o-1", "news": 1})
    assert not hasattr(event, "news")
    with pytest.raises(ValidationError, match="frozen"):
        event.order_id = "o-2"  # type: ignore[misc]  # the mistake


def test_events_take_no_number_that_json_lacks() -> None:
    class Weighed(Event, type="weighed"):
        weight: float

    with pytest.raises(ValidationError, match="finite"):
        Weighed(weight=float("nan"))


def test_data_may_have_fields_that_are_called_like_attributes_of_an_envelope() -> None:
    class Odd(Event, type="odd"):
        id: str
        source: str
        time: str
        type: str

    event = Odd(id="1", source="2", time="3", type="4")
    assert (event.id, event.source, event.time, event.type) == ("1", "2", "3", "4")
    assert Odd.event_type() == "odd"


def test_derived_ids_differ_wherever_the_address_does() -> None:
    plain = Address("n", "p", "k", 0, 1)
    others = [
        plain._replace(namespace="m"),
        plain._replace(pipeline="q"),
        plain._replace(key="l"),
        plain._replace(generation=1),
        plain._replace(sequence=2),
        Address("n", "p\0k", "", 0, 1),
    ]
    ids = {address.derive(index) for address in (plain, *others) for index in (0, 1, -1)}
    assert len(ids) == 3 * (1 + len(others))
    assert plain.derive(0) == plain.derive(0)
    assert str(plain.derive(0)) == "ebbf1f5c-e7ff-89ce-8a69-e2fd2d23bf3b"


def test_an_envelope_s_attributes_are_empty_unless_given() -> None:
    assert Envelope("1", "s", "t", None, None).attributes == {}
