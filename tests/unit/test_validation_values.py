"""Settings that are no text, no list or no number where one is wanted: each is a mistake with its cure."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines import Event, OrderBy, Topic
from tests.unit.mistaken import Flow, right, state_of, the_mistake, yes


class Paid(Event, type="paid", key="name"):
    name: str
    no: int = 1


LONE = "\ud800"
"""Half of a character, which UTF-8 cannot write."""


def saying(**policy: Any) -> Flow:
    flow = right()
    state_of(flow, "open").on(Paid, when=yes)
    flow.policy(Paid, **policy)
    return flow


def by(field: Any = "no", **settings: Any) -> dict[str, Any]:
    return {"order_by": OrderBy(field, **settings)}


@pytest.mark.parametrize(
    ("policy", "message", "cure"),
    [
        ({"duplicate_by": 5}, "duplicate_by for 'paid' names 5, which is no field of Paid", "Known are"),
        ({"duplicate_by": (["n"],)}, "duplicate_by for 'paid' names ['n'], which is no field", "Known are"),
        (by([]), "order_by for 'paid' names [], which is no field of Paid", "Known are"),
        (by(scope=[["x"]]), "order_by for 'paid' names ['x'], which is no field of Paid", "Known are"),
        (by(scope=5), "scope=5 for 'paid' is no list of fields", "Write scope=("),
        (by(scope=None), "scope=None for 'paid' is no list of fields", "Write scope=("),
        (by(scope="name"), "scope='name' for 'paid' is no list of fields", "Write scope=('name',)"),
        (by(stream=5), "stream=5 for 'paid' is not text but int", "leave it out"),
        (by(stream=[]), "stream=[] for 'paid' is not text but list", "leave it out"),
        (by(stream=None), "stream=None for 'paid' is not text but NoneType", "leave it out"),
        (by(stream=LONE), "for 'paid' has a character in it that cannot be shown", "leave it out"),
        (by(contiguous=5), "contiguous=5 for 'paid' is neither True nor False", "Write contiguous=True"),
        (by(contiguous=[]), "contiguous=[] for 'paid' is neither True nor False", "Write contiguous=True"),
        (by(contiguous=None), "contiguous=None for 'paid' is neither True nor False", "contiguous=True"),
        (by(contiguous=True, first=2**70), f"first={2**70} for 'paid' is no number to", "below 2^63"),
    ],
)
def test_what_a_policy_names_has_the_form_that_is_wanted(
    policy: dict[str, Any], message: str, cure: str
) -> None:
    mistake = the_mistake(saying(**policy))
    assert message in mistake.message
    assert cure in mistake.cure
    assert mistake.event == "paid"
    assert mistake.place.file.endswith("test_validation_values.py")


@pytest.mark.parametrize("setting", ["each", "type", "id", "key", "time"])
def test_a_field_of_a_topic_is_a_text_that_can_be_written(setting: str) -> None:
    settings: Any = {setting: LONE}
    mistake = the_mistake(right(topics=[Topic("t", **settings)]))
    assert mistake.message.startswith(f"{setting}={LONE!r} of topic 't' names no ")
    assert mistake.cure.startswith("Name one, ")
    assert mistake.cure.endswith("or leave the setting out")


@pytest.mark.parametrize("given", [set(), [], 0])
def test_the_topic_of_dead_letters_is_named_by_text(given: Any) -> None:
    mistake = the_mistake(right(topics=[Topic("t", dead_letters=given)]))
    assert mistake.message == f"the dead-letter topic {given!r} of 't' is not text but {type(given).__name__}"
    assert mistake.cure == "Name another one with Topic(..., dead_letters=...)"


@pytest.mark.parametrize("given", [[1], {"a": 1}, (["n"],)])
def test_an_event_type_is_text(given: Any) -> None:
    class Odd(Event, type=given):
        pass

    flow = right()
    state_of(flow, "open").on(Odd, to="done")
    mistake = the_mistake(flow)
    assert mistake.message == f"the event type {given!r} of Odd is not text but {type(given).__name__}"
