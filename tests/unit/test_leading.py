"""What may lead a run out of a state whose step is not done any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
import pytest

from statemachines import Call, Cancelled, Event, Failed, StepFailed
from statemachines.canonical import canonical_bytes
from statemachines.definition import Pipeline
from statemachines.leading import leads_on, may_reenter
from tests.unit.scoped import Journey
from tests.unit.undoing import Again, Noted
from tests.unit.working import Order, Shop


def leads(flow: Pipeline[Any], state: str = "charging") -> bool:
    return leads_on(orjson.loads(canonical_bytes(flow)), state)


def bare() -> Shop:
    """A state that runs a step, and nothing takes how that ends."""
    made = Shop()
    made.flow.moves.clear()
    return made


def shipped(made: Shop) -> type[Event]:
    """That the step of a state is done which is never active beside the other one."""
    shipping = made.flow.step()(ship)
    made.flow.state("shipping", run=shipping)
    return shipping.done


async def ship(_order: Order, _call: Call) -> int:
    return 1


def notes(made: Shop, *, to_paid: type[Event] | None = None, **leads: Any) -> None:
    """The state takes an event all the while; and what says how its step ended may lead out of it."""
    made.charging.on(Noted, **leads)
    made.charging.on(to_paid or made.charge.done, to=made.paid if to_paid else None)


NO_WAYS: dict[str, Callable[[Shop], Any]] = {
    "nothing": lambda made: None,
    "it is done": lambda made: made.charging.on(made.charge.done, to=made.paid),
    "it has failed": lambda made: made.charging.on(made.charge.failed, to=made.paid),
    "it has failed so": lambda made: made.charging.on(made.charge.failed_with(KeyError), to=made.paid),
    "it took too long": lambda made: made.flow.on(made.charge.timed_out, to=made.paid),
    "any step has failed": lambda made: made.flow.on_failure(to=made.paid),
    "any step of the state has failed": lambda made: made.charging.on(StepFailed, to=made.paid),
    "it is cancelled": lambda made: made.flow.on_cancel(to=made.paid),
    "it declines to be cancelled": lambda made: made.charging.on(Cancelled),
    "a function fails": lambda made: made.flow.on(Failed, to=made.paid),
    "the pipeline notes something": lambda made: made.flow.on(Noted),
    "it is reminded of": lambda made: made.charging.after(timedelta(days=1), do=lambda _order, _event: None),
    "another state goes on": lambda made: made.paid.on(Noted, to=made.refused),
    "a step of another state is done": lambda made: made.flow.on(shipped(made), to=made.refused),
    "it takes an event, and stays": lambda made: notes(made, to_paid=made.charge.done),
    "it takes an event, and leads to itself": lambda made: notes(
        made, to_paid=made.charge.failed, to=made.charging
    ),
}
WAYS: dict[str, Callable[[Shop], Any]] = {
    "an event": lambda made: made.charging.on(Noted, to=made.paid),
    "an event, where it begins anew": lambda made: made.charging.on(Noted, to=made.charging, reenter=True),
    "an event that it takes, and its step leads nowhere either": notes,
    "an event of the pipeline": lambda made: made.flow.on(Noted, to=made.paid),
    "an event that undoes the run": lambda made: made.flow.on(Noted, to=made.paid, compensate=True),
    "any event": lambda made: made.charging.on(Event.named("*"), to=made.paid),
    "a timer": lambda made: made.charging.after(timedelta(days=1), to=made.paid),
    "a timer of the run": lambda made: made.flow.after(timedelta(days=1), to=made.paid),
    "a condition": lambda made: made.charging.always(to=made.paid, when=lambda _order, _event: False),
}


@pytest.mark.parametrize("add", NO_WAYS.values(), ids=NO_WAYS)
def test_how_the_step_ends_leads_nowhere_once_it_is_not_done_any_more(add: Callable[[Shop], Any]) -> None:
    made = bare()
    add(made)
    assert not leads(made.flow)


@pytest.mark.parametrize("add", WAYS.values(), ids=WAYS)
def test_what_the_state_or_the_pipeline_waits_for_leads_on(add: Callable[[Shop], Any]) -> None:
    made = bare()
    add(made)
    assert leads(made.flow)


def journey() -> Journey:
    made = Journey()
    made.flow.moves.clear()
    made.lodging.on(made.room.done, to=made.flying)
    return made


def test_a_state_around_it_is_done_only_after_something_has_led_on() -> None:
    made = journey()
    made.trip.on(made.trip.done, to=made.at_home)
    assert not leads(made.flow, made.lodging.name)


def test_what_is_around_it_or_in_another_region_leads_on_where_it_leads_out() -> None:
    made = journey()
    assert not leads(made.flow, "lodging")
    made.asking.on(Noted, to=made.stamped)
    made.abroad.on(Noted, to=made.at_home)
    made.asking.on(made.visa.done, to=made.stamped)
    assert not leads(made.flow, "lodging")
    made.asking.on(made.visa.done, to=made.after)
    assert leads(made.flow, "lodging")
    for around in (made := journey()).trip, made.travel, made.wide:
        made.flow.moves.clear()
        around.on(Again, to=made.after)
        assert leads(made.flow, "lodging")


def test_the_run_of_the_same_step_in_another_region_leads_on_where_it_leads_out() -> None:
    made = journey()
    lent = made.papers.state("lent", run=made.room)
    made.asking.on(Noted, to=lent)
    lent.on(made.room.done, to=made.stamped)
    assert not leads(made.flow, "lodging"), "its region alone goes on"
    lent.on(made.room.failed, to=made.after)
    assert leads(made.flow, "lodging")
    made = journey()
    made.papers.state("lent", run=made.room)
    made.wide.on(made.room.done, to=made.after)
    assert leads(made.flow, "lodging"), "a state around both is told of either"
    made.flow.moves.clear()
    made.wide.on(made.visa.done)
    made.lodging.on(made.room.done, to=made.flying)
    assert not leads(made.flow, "lodging"), "a state around it stays on how another step ends"


def test_the_failure_of_a_step_that_goes_on_beside_it_leads_on() -> None:
    made = journey()
    made.flow.on_failure(to=made.after)
    assert leads(made.flow, "lodging")


def test_of_a_state_that_is_not_there_nothing_is_said() -> None:
    assert leads(bare().flow, "gone")


def test_what_leaves_a_state_and_leads_back_may_have_entered_it_again() -> None:
    def may(made: Journey, active: str, event: type[Event] = Noted) -> bool:
        return may_reenter(orjson.loads(canonical_bytes(made.flow)), str(event.event_type()), active.split())

    (made := journey()).lodging.on(Noted)
    assert not may(made, "wide travel trip lodging papers asking")
    (made := journey()).lodging.on(Noted, to=made.lodging)
    assert not may(made, "wide travel trip lodging papers asking"), "nothing is inside"
    (made := journey()).lodging.on(Noted, to=made.lodging, reenter=True)
    assert may(made, "wide travel trip lodging papers asking")
    assert not may(made, "wide travel trip flying papers asking"), "it is not there"
    assert not may(made, "wide travel trip lodging papers asking", Again), "on another event"
    (made := journey()).trip.on(Noted, to=made.lodging)
    assert may(made, "wide travel trip lodging papers asking"), "what is inside is left"
    (made := journey()).lodging.on(made.room.failed, to=made.lodging, reenter=True)
    assert may(made, "wide travel trip lodging papers asking", made.room.failed_with(KeyError))
    (made := journey()).flow.on(Event.named("*"), to=made.wide)
    assert may(made, "wide travel trip lodging papers asking")
    made.lodging.on(Noted)
    assert may(made, "wide travel trip lodging papers asking"), "by way of the other region"
    made.asking.on(Noted)
    assert not may(made, "wide travel trip lodging papers asking"), "those inside take it"
