"""Mistakes with policies: each with what it is, its place, and its cure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field

from statemachines import Context, Defer, Event, OrderBy, Pipeline
from statemachines.limits import DELAY_DAYS_MAX
from statemachines.validation import find_mistakes, find_mistakes_across
from tests.unit.charted import nested, with_histories
from tests.unit.mistaken import (
    Begun,
    Empty,
    Flow,
    build,
    line_of,
    right,
    state_of,
    the_mistake,
    yes,
)

HOUR = timedelta(hours=1)


class Paid(Event, type="paid", key="name"):
    name: str
    number: int = Field(1, alias="no")
    line: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults


class Lost(Event, type="lost"):
    pass


def paying(**settings: Any) -> Flow:
    flow = right(**settings)
    state_of(flow, "open").on(Paid, when=yes)
    return flow


def saying(**policy: Any) -> Flow:
    flow = paying()
    flow.policy(Paid, **policy)
    return flow


@pytest.mark.parametrize("situation", ["no_run", "unexpected", "closed"])
@pytest.mark.parametrize("given", ["ignroe", 5, [], {"ttl": 5}, True])
def test_a_decision_is_one_of_its_situation(situation: str, given: Any) -> None:
    mistake = the_mistake(paying(**{situation: given}))
    assert mistake.message == f"{situation}={given!r} is no policy"
    if given == "ignroe":
        assert mistake.cure == "Did you mean 'ignore'?"
    else:
        assert "'ignore'" in mistake.cure
        assert "'dead_letter'" in mistake.cure
    if given is not None:
        assert (
            the_mistake(saying(**{situation: given})).message
            == f"{situation}={given!r} for 'paid' is no policy"
        )


@pytest.mark.parametrize(
    ("situation", "given"),
    [("closed", "defer"), ("closed", Defer()), ("unexpected", "start"), ("no_run", "restart")],
)
def test_a_decision_of_another_situation_is_none_of_this_one(situation: str, given: Any) -> None:
    assert the_mistake(paying(**{situation: given})).message == f"{situation}={given!r} is no policy"


@pytest.mark.parametrize(
    "ttl", [timedelta(0), -HOUR, timedelta(days=DELAY_DAYS_MAX, seconds=1), timedelta.max, 5, "1 h", None]
)
def test_an_event_is_deferred_for_a_time_that_passes_and_ends(ttl: Any) -> None:
    mistake = the_mistake(saying(unexpected=Defer(ttl)))
    assert mistake.message == f"unexpected for 'paid' defers for {ttl!r}"
    assert mistake.cure == f"Give a timedelta of more than nothing and at most {DELAY_DAYS_MAX} days"
    assert the_mistake(paying(no_run=Defer(ttl))).message == f"no_run defers for {ttl!r}"
    gap = the_mistake(saying(order_by=OrderBy("no", contiguous=True, gap=Defer(ttl))))
    assert gap.message == f"gap for 'paid' defers for {ttl!r}"


def test_what_becomes_of_it_then_is_one_of_two() -> None:
    mistake = the_mistake(saying(unexpected=Defer(HOUR, then="ignroe")))  # type: ignore[arg-type]  # the mistake
    assert (
        mistake.message
        == "unexpected for 'paid' defers, and then='ignroe' is nothing that becomes of an event"
    )
    assert mistake.cure == "Did you mean 'ignore'?"


def test_the_place_of_a_policy_is_its_line() -> None:
    flow = paying()
    flow.policy(Paid, unexpected=Defer(-HOUR))  # here
    mistake = the_mistake(flow)
    assert mistake.place.line == line_of(test_the_place_of_a_policy_is_its_line, "# here")
    assert (mistake.state, mistake.event) == (None, None)


def test_what_is_said_twice_contradicts_itself() -> None:
    flow = paying()
    flow.policy(Paid, unexpected="ignore", duplicate_by="no", order_by="no")
    flow.policy(Paid, closed="ignore")
    state_of(flow, "open").policy(Paid, unexpected="defer")
    state_of(flow, "open").policy(unexpected="defer")
    assert find_mistakes(flow) == []
    first = flow.policies[0].place
    for again, name in (
        ({"unexpected": "ignore"}, "unexpected"),
        ({"duplicate_by": "name"}, "duplicate_by"),
        ({"order_by": OrderBy("no")}, "order_by"),
    ):
        flow.policy(Paid, **again)
        mistake = the_mistake(flow)
        assert mistake.message == f"{name} for 'paid' is also said at {first}"
        assert mistake.cure == "Keep one of the two"
        flow.policies.pop()
    state_of(flow, "open").policy(unexpected="ignore")
    assert the_mistake(flow).message.startswith("unexpected in the state 'open' is also said at")


@pytest.mark.parametrize("event", ["paid", None, 5, Paid(name="x", no=1)])
def test_a_policy_is_for_a_class_of_events(event: Any) -> None:
    flow = paying()
    flow.policy(event, closed="ignore")
    mistake = the_mistake(flow)
    assert mistake.message == f"a policy is for a class of events, not {event!r}"
    assert mistake.cure == "Name the class of events that it is for"


def test_a_policy_is_for_an_event_that_the_pipeline_takes() -> None:
    flow = paying()
    flow.policy(Lost, closed="ignore")
    mistake = the_mistake(flow)
    assert mistake.message == "a policy is for 'lost', which no transition of pipeline 'right' takes"
    assert "Known are" in mistake.cure


def test_a_policy_that_says_nothing_is_one_that_was_forgotten() -> None:
    mistake = the_mistake(saying())
    assert (mistake.message, mistake.cure) == (
        "a policy for 'paid' says nothing",
        "Say what it is for, as in unexpected=...",
    )


def test_no_policy_is_asked_of_what_comes_from_inside() -> None:
    flow = nested()
    flow.policy(state_of(flow, "box").done, unexpected="ignore")
    state_of(flow, "first").after(HOUR, to="second")
    timer = flow.moves[-1].event
    assert timer is not None
    flow.policy(timer, closed="ignore")
    found = [one.message for one in find_mistakes(flow) if one.severity == "error"]
    told = "comes from inside of a run: where nothing takes it, it is gone, and no policy is asked"
    assert [one for one in found if "comes from inside" in one] == [
        f"'done.state.box' {told}",
        f"'after.first.0' {told}",
    ]


def test_no_run_is_not_asked_of_an_event_that_starts_one() -> None:
    flow = right()
    flow.policy(Begun, no_run="ignore")
    mistake = the_mistake(flow)
    assert mistake.message == "no_run for 'begun' is never asked: the event starts a run where there is none"
    cure = "Leave it out, or do not let the event start a run, or only under a condition: when="
    assert mistake.cure == cure


@pytest.mark.parametrize("whose", ["the state", "around it", "the pipeline", "all"])
def test_unexpected_is_not_asked_where_the_event_is_always_taken(whose: str) -> None:
    class Everything(Event, type="*"):
        pass

    flow = nested()
    first, box = state_of(flow, "first"), state_of(flow, "box")
    match whose:
        case "the state":
            first.on(Paid)
        case "around it":
            box.on(Paid)
        case "the pipeline":
            flow.on(Paid)
        case _:
            flow.on(Paid, when=yes)
            flow.on(Everything)
    first.policy(Paid, unexpected="ignore")
    mistake = the_mistake(flow)
    assert mistake.message == (
        f"unexpected for 'paid' in the state 'first' is never asked: the transition at {flow.moves[-1].place} takes "
        "every such event"
    )
    assert mistake.cure == "Leave it out, or give the transition a guard"
    assert (mistake.state, mistake.event) == ("first", "paid")


def test_it_is_asked_where_only_another_state_or_a_guard_takes_it() -> None:
    flow = nested()
    state_of(flow, "first").on(Paid, when=yes)
    state_of(flow, "second").on(Paid)
    state_of(flow, "first").policy(Paid, unexpected="ignore")
    state_of(flow, "box").policy(Paid, unexpected="ignore")
    flow.policy(Paid, unexpected="ignore")
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("name", "what"), [("done", "final"), ("last", "a history, and never active itself")]
)
def test_a_state_that_takes_no_events_is_not_asked(name: str, what: str) -> None:
    flow = with_histories()
    state_of(flow, name).policy(unexpected="ignore")
    mistake = the_mistake(flow)
    assert mistake.message == f"the state {name!r} is {what}, so its policy is never asked"
    assert mistake.cure == "Say it of another state"
    assert mistake.state == name
    inner = nested()
    state_of(inner, "finished").policy(unexpected="ignore")
    assert find_mistakes(inner) == []


def test_an_event_that_starts_nothing_starts_nothing_again() -> None:
    mistake = the_mistake(saying(closed="restart"))
    assert mistake.message == (
        "closed='restart' for 'paid' begins nothing: the event starts no run, so that it meets no_run='dead_letter'"
    )
    assert mistake.cure == "Say closed='dead_letter', or no_run='start' or 'defer' for it"
    assert find_mistakes(saying(closed="restart", no_run="defer")) == []
    assert find_mistakes(saying(closed="restart", no_run=Defer(HOUR))) == []


def test_a_pipeline_whose_key_starts_again_needs_a_start_event_that_may_start_it() -> None:
    def restarting(**settings: Any) -> Flow:
        flow = paying(closed="restart", **settings)
        flow.policy(Begun, closed="dead_letter")
        return flow

    mistake = the_mistake(restarting(), "warning")
    there = line_of(restarting, "flow.policy(Begun")
    assert mistake.message == (
        "closed='restart' begins nothing: of each event that starts a run something else is said, as at "
        f"{__file__}:{there}"
    )
    assert mistake.cure == "Leave one of the two out"
    assert find_mistakes(restarting(no_run="start")) == []
    assert find_mistakes(restarting(no_run=Defer(HOUR))) == []
    another = restarting()
    another.start(Paid, build)
    assert find_mistakes(another) == []


def restarting(**settings: Any) -> Flow:
    """A run of its key begins with ``begun``, and the next one does once that has ended."""
    return right(closed="restart", **settings)


def test_a_start_event_that_waits_for_its_run_to_end_begins_the_next_one_and_is_warned_of() -> None:
    mistake = the_mistake(restarting(), "warning")
    assert mistake.message == (
        "'begun' waits where it comes while a run goes on, which takes it nowhere, and begins the next run as soon as "
        "that one ends: closed='restart'"
    )
    assert mistake.cure == (
        "Say flow.policy(Begun, unexpected='ignore'), or 'dead_letter'; 'defer' if that is what is meant"
    )
    assert (mistake.event, mistake.place.line) == ("begun", line_of(right, "flow.start("))
    only_here = right()
    only_here.policy(Begun, closed="restart")
    assert "'begun' waits" in the_mistake(only_here, "warning").message


@pytest.mark.parametrize("unexpected", ["ignore", "dead_letter", "defer", Defer(HOUR)])
def test_a_start_event_of_which_a_policy_says_what_becomes_of_it_while_a_run_goes_on_is_fine(
    unexpected: Any,
) -> None:
    flow = restarting()
    flow.policy(Begun, unexpected=unexpected)
    assert find_mistakes(flow) == []


def test_a_start_event_whose_run_ends_as_it_begins_waits_for_none() -> None:
    flow: Flow = Pipeline("echo", Empty, topics=["t"], closed="restart")
    flow.state("end", initial=True, final=True)
    flow.start(Begun, build)
    assert [one.message for one in find_mistakes(flow) if "waits" in one.message] == []


def test_a_start_event_that_a_run_takes_or_that_no_run_waits_with_is_fine() -> None:
    taken = restarting()
    taken.on(Begun)
    assert find_mistakes(taken) == []
    assert find_mistakes(restarting(unexpected="ignore")) == []
    assert find_mistakes(restarting(unexpected=Defer(HOUR))) == []
    other = restarting()
    other.policy(Begun, closed="ignore")
    other.start(Paid, build)
    other.policy(Paid, unexpected="ignore")
    assert find_mistakes(other) == []


def test_a_pipeline_whose_key_starts_again_needs_what_starts_a_run() -> None:
    flow = paying(closed="restart")
    flow.starts.clear()
    assert the_mistake(flow).message == "pipeline 'right' has no start event: no run ever begins"


class Needy(Context):
    amount: int
    owner: str


def test_a_run_that_starts_by_itself_needs_a_context_of_defaults() -> None:
    flow = paying(context=Needy, no_run="start")
    flow.starts.clear()
    mistake = the_mistake(flow)
    assert mistake.message == (
        "no_run='start' begins runs with a context of its defaults, and Needy has none for 'amount' and 'owner'"
    )
    assert mistake.cure == "Give the fields defaults, or name an event that starts runs"
    assert find_mistakes(paying(no_run="start")) == []


@pytest.mark.parametrize(
    ("policy", "message", "cure"),
    [
        (
            {"duplicate_for": HOUR},
            "duplicate_for for 'paid' is given without duplicate_by",
            "Name the fields",
        ),
        ({"duplicate_by": []}, "duplicate_by for 'paid' names no field", "Name the fields"),
        (
            {"duplicate_by": "number"},
            "duplicate_by for 'paid' names 'number', which is no field of Paid",
            "The data calls it 'no'",
        ),
        (
            {"duplicate_by": ["name", "mo"]},
            "duplicate_by for 'paid' names 'mo', which is no",
            "Known are",
        ),
        ({"duplicate_by": ["name", 5]}, "duplicate_by for 'paid' names 5, which is no", "Known are"),
        (
            {"duplicate_by": "no", "duplicate_for": -HOUR},
            f"duplicate_for={-HOUR!r} for 'paid' is no time that passes",
            "Give a timedelta, or leave it out to remember for ever",
        ),
        (
            {"duplicate_by": "no", "duplicate_for": 5},
            "duplicate_for=5 for 'paid' is no time that passes",
            "Give a",
        ),
        ({"order_by": 5}, "order_by=5 for 'paid' is no order", 'Write order_by=OrderBy("field", ...)'),
        (
            {"order_by": "nam"},
            "order_by for 'paid' names 'nam', which is no field of Paid",
            "Did you mean 'name'?",
        ),
        (
            {"order_by": OrderBy("no", scope=("lien.id",))},
            "order_by for 'paid' names 'lien.id', which is no field of Paid",
            "",
        ),
        ({"order_by": OrderBy("no", "itn")}, "events cannot be in order as 'itn'", "Did you mean 'int'?"),  # type: ignore[arg-type]  # the mistake
        (
            {"order_by": OrderBy("no", "lsn", contiguous=True)},
            "contiguous=True for 'paid' needs numbers that follow one another, not kind='lsn'",
            "Use kind='int', or leave contiguous out",
        ),
        (
            {"order_by": OrderBy("no", contiguous=True, first=-1)},
            "first=-1 for 'paid' is no number to begin with",
            "Use 0, 1, ...",
        ),
        (
            {"order_by": OrderBy("no", contiguous=True, gap="ignore")},  # type: ignore[arg-type]  # the mistake
            "gap='ignore' for 'paid' is no deferral",
            "Write gap=Defer(timedelta(...))",
        ),
        (
            {"order_by": OrderBy("no", first=0)},
            "first=0 for 'paid' says nothing without contiguous=True",
            "Add contiguous=True, or leave it out",
        ),
        (
            {"order_by": OrderBy("no", gap=Defer(HOUR))},
            "for 'paid' says nothing without contiguous=True",
            "Add contiguous=True, or leave it out",
        ),
    ],
)
def test_business_keys_and_orders_name_fields_and_make_sense(
    policy: dict[str, Any], message: str, cure: str
) -> None:
    mistake = the_mistake(saying(**policy))
    assert message in mistake.message
    assert cure in mistake.cure
    assert mistake.event == "paid"


def test_fields_within_fields_and_aliases_are_known() -> None:
    order = OrderBy("no", scope=("line.id",), contiguous=True, first=0, gap=Defer(HOUR))
    assert find_mistakes(saying(order_by=order, duplicate_by=["line.id", "no"], duplicate_for=HOUR)) == []


def test_a_contiguous_order_of_what_is_ignored_before_its_run_is_warned_of() -> None:
    def flow(**settings: Any) -> Flow:
        pipeline = paying(**settings)
        pipeline.policy(Paid, order_by=OrderBy("no", contiguous=True))
        return pipeline

    wrong = flow(no_run="ignore")
    [mistake] = find_mistakes(wrong)
    assert (mistake.severity, mistake.event, mistake.place) == ("warning", "paid", wrong.policies[0].place)
    assert mistake.message == (
        f"contiguous=True for 'paid' counts from 1, and no_run='ignore' at {wrong.place} drops what comes before its "
        "run: all that follow such an event in its stream would wait for it"
    )
    assert "no_run='defer'" in mistake.cure
    here = flow()
    here.policy(Paid, no_run="ignore")
    assert f"no_run='ignore' at {here.policies[1].place} drops" in the_mistake(here, "warning").message
    both = paying()
    both.policy(Paid, no_run="ignore", order_by=OrderBy("no", contiguous=True))
    assert "and no_run='ignore' drops" in the_mistake(both, "warning").message
    wrong.policy(Paid, no_run="defer")
    assert find_mistakes(wrong) == []
    for no_run in ("dead_letter", "defer"):
        assert find_mistakes(flow(no_run=no_run)) == []
    plain = paying(no_run="ignore")
    plain.policy(Paid, order_by="no")
    assert find_mistakes(plain) == []
    begins = flow(no_run="ignore")
    begins.start(Paid, lambda paid: begins.context())
    assert not [one for one in find_mistakes(begins) if "contiguous" in one.message]


def test_a_stream_is_in_one_order() -> None:
    flow = paying()

    class Other(Event, type="other"):
        no: int

    state_of(flow, "open").on(Other)
    flow.policy(Paid, order_by=OrderBy("no", stream="care"))
    flow.policy(Other, order_by=OrderBy("no", "hex", stream="care"))
    mistake = the_mistake(flow)
    assert mistake.message.startswith("order_by for 'other' is in one stream with that at ")
    assert mistake.cure == "Say the same, or name another stream"
    flow.policies[-1] = flow.policies[0].__class__(
        None, Other, {}, None, OrderBy("no", stream="own"), flow.policies[-1].place
    )
    assert find_mistakes(flow) == []


def test_two_versions_do_not_have_one_number() -> None:
    one, other = right(version=2), right(version=2)
    found = [str(mistake) for mistake in find_mistakes_across([one, other, right(version=3)])]
    assert len(found) == 1
    assert (
        f"pipeline 'right' version 2 is also at {one.place}. Give one of them another name or version"
        in found[0]
    )


def test_a_stream_named_like_another_type_that_is_in_order_must_say_the_same() -> None:
    flow = paying()

    class Other(Event, type="other", key="name"):
        name: str
        no: str

    state_of(flow, "open").on(Other, when=yes)
    flow.policy(Paid, order_by=OrderBy("no", stream="other"))
    flow.policy(Other, order_by=OrderBy("no", "hex"))
    mistake = the_mistake(flow)
    assert mistake.message.startswith("order_by for 'other' is in one stream with that at ")
