"""The test kits say in a sentence what an argument is that they do not take, and what to give instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from connectors.testkit import TopicCase, reading
from statemachines import Context, Pipeline, Publish, Raise
from statemachines.events import Envelope
from statemachines.outcome import Reason
from statemachines.testkit import Case, given
from tests.unit import undoing
from tests.unit.machines import Added, Closed, Opened, account_pipeline
from tests.unit.undoing import Trade
from tests.unit.working import Order, Placed, Shop, charge, shop

ADDED = Added(name="acme", amount=4)
ENVELOPE = Envelope("1", "here", "order.cancelled", "test", None)
AS_JSON = "what is in a record is bytes, text, or as JSON has it, and not"
IN_ONE_TEXT = "state= is the names of all active states in one text, outermost first, and not"


def told(wrong: Callable[[], Any]) -> str:
    with pytest.raises(AssertionError) as raised:
        wrong()
    return str(raised.value)


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [("flow", "str"), (None, "NoneType"), (pytest, "module"), (Pipeline, "the class Pipeline")],
)
def test_what_is_tested_is_a_pipeline(pipeline: Any, said: str) -> None:
    assert told(lambda: given(pipeline)).startswith(f"what is tested is a pipeline, and not {said}")
    assert told(lambda: reading(pipeline)).startswith(f"what is tested is a pipeline, and not {said}")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Placed, "the class Placed itself is no event: make one of it, as in Placed(...)"),
        ([Placed()], "events are given one by one, and not as a list: write * before it"),
        ((Placed(),), "events are given one by one, and not as a tuple: write * before it"),
        ({"amount": 5}, "dict is no event: give an instance of its class"),
        ("order.placed", "str is no event: give an instance of its class"),
        (Publish("orders", Placed()), "Publish is no event: give the event in it"),
        (Raise(Placed()), "Raise is no event: give the event in it"),
    ],
)
def test_what_is_no_event_does_not_come(event: Any, said: str) -> None:
    flow = shop().flow
    assert told(lambda: given(flow, event)) == said
    assert told(lambda: given(flow, Placed()).when(event)) == said
    assert told(lambda: given(flow, Placed()).when_again(event)) == said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            lambda case: case.later(5),
            "what passes is a timedelta, as in later(timedelta(days=1)), and not int",
        ),
        (lambda case: case.when_read("a", {}), "what comes beside the data is an Envelope, and not str"),
        (
            lambda case: case.when_read(ENVELOPE, Placed()),
            "data is as JSON has it, such as a dict, and not Placed: Type is not JSON serializable: Placed",
        ),
        (lambda case: case.when_cancelled(who=5), "who= is text, and not int"),
        (lambda case: case.when_cancelled(why=None), "why= is text, and not NoneType"),
        (lambda case: case.then(state=["active"]), f"{IN_ONE_TEXT} list: is_in= takes states, and names"),
        (
            lambda case: case.then(state=account_pipeline().states[0]),
            f"{IN_ONE_TEXT} State: is_in= takes states, and names",
        ),
        (lambda case: case.then(is_in=5), "is_in= takes states, or their names, and not int"),
        (lambda case: case.then(is_in=["active", 5]), "is_in= takes states, or their names, and not int"),
        (
            lambda case: case.then(is_in=shop().charge),
            "is_in= takes states, or their names, and not AsyncStep",
        ),
        (
            lambda case: case.then(context={"totl": 5}),
            "the context has no field 'totl'. Did you mean 'total'?",
        ),
        (
            lambda case: case.then(context={5: 5}),
            "the context has no field 5. Known are 'limit', 'total' and 'note'.",
        ),
        (
            lambda case: case.then(context=Order()),
            'context= is a mapping, as in context={"amount": 5}, and not Order',
        ),
        (
            lambda case: case.then(publishes=ADDED),
            "publishes= takes a list, as in publishes=[Paid(...)], and not Added alone",
        ),
        (
            lambda case: case.then(publishes=Publish("totals", ADDED)),
            "publishes= takes a list, as in publishes=[Paid(...)], and not Publish alone",
        ),
        (
            lambda case: case.then(publishes=5),
            "publishes= takes a list, as in publishes=[Paid(...)], and not int alone",
        ),
        (
            lambda case: case.then(publishes=[Added]),
            "the class Added itself is no event: make one of it, as in Added(...)",
        ),
        (
            lambda case: case.then(publishes=[Publish("totals", Added)]),  # type: ignore[arg-type]  # the mistake
            "the class Added itself is no event: make one of it, as in Added(...)",
        ),
        (lambda case: case.then(publishes=["added"]), "str is no event: give an instance of its class"),
        (lambda case: given(account_pipeline(), now="2024"), "now= is a datetime, and not str"),  # type: ignore[arg-type]  # the mistake
    ],
)
def test_what_a_case_does_not_take_is_said(wrong: Callable[[Case[Any]], Any], said: str) -> None:
    case = given(account_pipeline(), Opened(name="acme")).when(ADDED)
    assert told(lambda: wrong(case)) == said


class Sized(Context):
    width: int = 2

    @property
    def area(self) -> int:
        return self.width**2


def test_a_property_of_the_context_is_asked_for_like_a_field() -> None:
    flow = Pipeline("sized", Sized, topics=["sizes"])
    flow.state("there", initial=True)
    flow.start(Placed, lambda _event: Sized())
    given(flow, Placed()).then(context={"width": 2, "area": 4})


def test_a_reason_is_one_that_there_is() -> None:
    nobody: Any = "nobody"
    said = "a reason is one of Reason, as in Reason.NO_RUN, and not 'nobody'. Known are 'unreadable', "
    case = given(account_pipeline()).when(ADDED)
    for asks in (case.then_refused, case.then_ignored, case.then_deferred):
        assert told(lambda asks=asks: asks(nobody)).startswith(said)  # type: ignore[misc]  # of one that is bound
    as_text: Any = "no run"
    case.then_refused(as_text)
    assert told(lambda: case.then_ignored(as_text)).startswith("the event was not ignored")
    as_text = "run closed"
    assert told(lambda: case.then_refused(as_text)).endswith("not as 'run closed'")
    number: Any = 5
    assert told(lambda: case.then_refused(Reason.NO_RUN, saying=number)) == "saying= is text, and not int"


@pytest.mark.parametrize(
    ("pick", "said"),
    [
        (lambda made: "charge", "'charge' is no step: give the step itself, and not its name"),
        (lambda made: charge, "the function charge is no step: give what @flow.step() has made of it"),
        (lambda made: [made.charge], "steps are given one by one, and not as a list: write * before it"),
        (lambda made: made.charging, "State is no step: give the step that it runs"),
        (lambda made: made.paid, "State is no step: it runs none"),
        (lambda made: made.charge.done, "the class Done itself is no step: give the step whose end it tells"),
        (lambda made: None, "NoneType is no step: give what @flow.step() has made"),
    ],
)
def test_what_is_no_step_has_no_end(pick: Callable[[Shop], Any], said: str) -> None:
    made = shop()
    case, wrong = given(made.flow, Placed()), pick(made)
    for ask in (
        lambda: case.step_done(wrong, 5),
        lambda: case.step_failed(wrong, ValueError()),
        lambda: case.step_timed_out(wrong),
        lambda: case.step_later(wrong),
        lambda: case.step_stopped(wrong, "never"),
        lambda: case.undone(wrong),
        lambda: case.undoing_failed(wrong, ValueError()),
        lambda: case.call_of(wrong),
        lambda: case.then_runs(wrong),
        lambda: case.then_owes(wrong),
    ):
        assert told(ask) == said


def test_a_step_that_undoes_nothing_is_not_undone() -> None:
    made = Trade()
    case, step = given(made.flow, undoing.Placed()), made.charge
    said = "the step 'charge' undoes nothing: how it ended is said by step_done and step_failed"
    wrong: Any = step
    assert told(lambda: case.undone(wrong)) == said
    assert told(lambda: case.undoing_failed(wrong, ValueError())) == said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda topic: reading(account_pipeline(), ["accounts"]), "a topic's name is text, and not list"),  # type: ignore[arg-type]  # the mistake
        (lambda topic: reading(account_pipeline(), now="2024"), "now= is a datetime, and not str"),  # type: ignore[arg-type]  # the mistake
        (
            lambda topic: topic.record({}, headers=[("ce_type", "closed")]),
            'headers= is a mapping, as in headers={"ce_type": "order.paid"}, and not list',
        ),
        (lambda topic: topic.record({}, time="now"), "time= is a datetime, and not str"),
        (
            lambda topic: topic.record(Closed(name="acme")),
            f"{AS_JSON} Closed: Type is not JSON serializable: Closed",
        ),
        (
            lambda topic: topic.record({}, headers={"for": timedelta(1)}),
            f"{AS_JSON} timedelta: Type is not JSON serializable: datetime.timedelta",
        ),
        (lambda topic: topic.run(["acme"]), "the key of a run is text, and not list"),
    ],
)
def test_what_a_topic_does_not_take_is_said(wrong: Callable[[TopicCase[Any]], Any], said: str) -> None:
    assert told(lambda: wrong(reading(account_pipeline()))) == said
