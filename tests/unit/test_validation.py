"""Each kind of mistake in a definition: what is said of it, where it points, and that all come at once."""

from __future__ import annotations

from typing import Any

import pytest

from statemachines import DefinitionError, Event, Pipeline, Topic
from statemachines.machine import compile_pipeline
from statemachines.shipped.orders import flow as orders
from statemachines.validation import check, find_mistakes, find_mistakes_across
from tests.unit.mistaken import (
    Asked,
    Begun,
    Empty,
    Ended,
    Flow,
    awaited,
    build,
    line_of,
    no,
    right,
    state_of,
    the_mistake,
    yes,
)


def test_pipelines_without_mistakes_have_none() -> None:
    assert find_mistakes(right()) == []
    assert find_mistakes(orders) == []
    check(orders)


def test_an_unknown_target_is_named_with_what_was_meant() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to="dnoe")
    mistake = the_mistake(flow)
    assert mistake.message == "there is no state 'dnoe' to go to"
    assert mistake.cure == "Did you mean 'done'?"
    assert (mistake.state, mistake.event) == ("open", "asked")
    assert mistake.place == (__file__, line_of(test_an_unknown_target_is_named_with_what_was_meant, "dnoe"))
    assert str(mistake) == f"{mistake.place}: error: there is no state 'dnoe' to go to. Did you mean 'done'?"


def test_targets_of_start_events_are_looked_at_too() -> None:
    flow = right()
    flow.start(Asked, build, to="closed")
    assert "no state 'closed'" in the_mistake(flow).message


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (["open", "done"], "the targets 'open' and 'done' cannot both be active"),
        (("open", "open"), "the target 'open' is named twice"),
        (["open", "closed"], "there is no state 'closed' to go to"),
    ],
)
def test_several_targets_of_a_start_event_are_looked_at(to: Any, message: str) -> None:
    flow = right()
    flow.start(Asked, build, to=to)
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.event) == (message, "asked")


def test_a_target_in_another_pipeline_is_not_taken_for_one_s_own() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to=state_of(right("other"), "done"))
    assert the_mistake(flow).message == "the target 'done' is a state of pipeline 'other'"


def test_a_target_that_is_no_name_is_unknown() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to=[["done"]])
    assert "no state \"['done']\"" in the_mistake(flow).message


def test_a_pipeline_without_states_says_so() -> None:
    flow: Flow = Pipeline("bare", Empty, topics=["things"])
    flow.start(Begun, build)
    messages = [mistake.message for mistake in find_mistakes(flow)]
    assert messages == [
        "pipeline 'bare' has no states",
        "pipeline 'bare' has no final state: its runs never end",
    ]


def test_one_state_must_be_initial() -> None:
    flow: Flow = Pipeline("lost", Empty, topics=["things"])
    flow.state("done", final=True)
    flow.start(Begun, build)
    assert the_mistake(flow).message == "pipeline 'lost' has no initial state"


def test_only_one_state_may_be_initial() -> None:
    flow = right()
    flow.state("other", initial=True).on(Asked, to="done")
    mistake = the_mistake(flow)
    assert mistake.message == "the state 'other' is initial, and so is 'open'"
    assert mistake.state == "other"


def test_a_state_that_no_run_reaches_is_a_mistake_and_so_are_those_behind_it() -> None:
    flow = right()
    flow.state("island").on(Asked, to="beach")
    flow.state("beach").on(Asked, to="done")
    assert [mistake.message for mistake in find_mistakes(flow)] == [
        "no run ever reaches the state 'island'",
        "no run ever reaches the state 'beach'",
    ]


def test_states_that_only_start_events_or_the_pipeline_s_transitions_lead_to_are_reached() -> None:
    flow = right()
    flow.state("direct").on(Asked, to="done")
    flow.start(Asked, build, to="direct")
    flow.on(Event.named("stop"), to=flow.state("stopped", final=True))
    assert find_mistakes(flow) == []


def test_a_state_without_a_way_to_an_end_is_a_warning() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to=flow.state("trap"))
    mistake = the_mistake(flow, "warning")
    assert mistake.message == "a run that is in 'trap' never ends: no way leads from it to a final state"
    compile_pipeline(flow)


def test_a_pipeline_without_an_end_is_one_warning() -> None:
    flow: Flow = Pipeline("endless", Empty, topics=["things"])
    flow.state("open", initial=True).on(Asked, to=flow.state("again"))
    flow.start(Begun, build)
    assert the_mistake(flow, "warning").message == "pipeline 'endless' has no final state: its runs never end"


def test_a_transition_behind_an_unguarded_one_never_fires() -> None:
    flow = right()
    state_of(flow, "open").on(Ended, to="done", when=yes)
    mistake = the_mistake(flow)
    assert "on 'ended' in 'open' never fires" in mistake.message
    assert f"the one at {flow.moves[0].place} comes first and has no guard" in mistake.message


def test_a_transition_behind_one_with_the_same_guard_never_fires() -> None:
    flow = right()
    for _ in range(2):
        state_of(flow, "open").on(Asked, when=yes)
    assert the_mistake(flow).message.endswith("comes first and has the same guard yes")


def test_a_transition_behind_guarded_ones_is_no_mistake() -> None:
    flow = right()
    for guard in (yes, no, None):
        state_of(flow, "open").on(Asked, when=guard)
    assert find_mistakes(flow) == []


def test_a_transition_of_the_pipeline_never_fires_if_every_state_has_its_own() -> None:
    flow = right()
    flow.on(Ended, to="done")
    assert "on 'ended' in any state never fires" in the_mistake(flow).message


def test_a_transition_of_the_pipeline_may_stand_behind_those_of_some_states() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to=flow.state("other"))
    flow.on(Ended, to="done")
    assert find_mistakes(flow) == []


def test_a_pipeline_without_a_start_event_never_begins() -> None:
    flow = right()
    flow.starts.clear()
    assert the_mistake(flow).message == "pipeline 'right' has no start event: no run ever begins"


def test_an_event_starts_a_run_in_one_way_only() -> None:
    flow = right()
    flow.start(Begun, build)
    mistake = the_mistake(flow)
    assert mistake.message == f"the event 'begun' already starts a run, by the line at {flow.starts[0].place}"


def test_a_name_is_used_for_one_state() -> None:
    flow = right()
    flow.state("open")
    mistake = the_mistake(flow)
    assert mistake.message == f"the state 'open' was already made at {flow.states[0].place}"


def test_an_event_type_belongs_to_one_class() -> None:
    class Also(Event, type="begun"):
        pass

    flow = right()
    flow.on(Also, to="done")
    mistake = the_mistake(flow)
    assert mistake.message == "the event type 'begun' of Also is already that of Begun"
    assert str(Begun.event_place()) in mistake.cure
    assert mistake.place == Also.event_place()


def test_an_event_class_names_a_type() -> None:
    class Untyped(Event):
        pass

    flow = right()
    flow.on(Untyped, to="done")
    mistake = the_mistake(flow)
    assert mistake.message == "the event class Untyped names no type"
    assert mistake.place.file == __file__


@pytest.mark.parametrize("event_type", ["x" * 256, "a\nb", "nul\0", "lone \ud800", 5])
def test_an_event_type_can_be_stored_and_shown(event_type: Any) -> None:
    flow = right()
    flow.on(Event.named(str(event_type)) if event_type != 5 else _typed(5), to="done")
    assert the_mistake(flow).message.startswith("the event type ")


def _typed(event_type: Any) -> type[Event]:
    class Odd(Event):
        pass

    Odd.__event_type__ = event_type
    return Odd


def test_an_event_type_may_have_spaces() -> None:
    flow = right()
    flow.on(Event.named("Confirmation of receipt"), to="done")
    assert find_mistakes(flow) == []


def test_an_event_s_key_is_one_of_its_fields() -> None:
    class Keyed(Event, type="keyed", key="order"):
        order_id: str

    flow = right()
    flow.on(Keyed, to="done")
    mistake = the_mistake(flow)
    assert (mistake.message, mistake.cure) == (
        "the key of Keyed is 'order', but it has no such field",
        "Did you mean 'order_id'?",
    )


def test_an_event_s_key_is_text_or_a_whole_number() -> None:
    class Keyed(Event, type="keyed", key="weight"):
        weight: float

    flow = right()
    flow.on(Keyed, to="done")
    assert the_mistake(flow).message.endswith("which is neither text nor a whole number")


def test_an_event_class_may_not_hide_its_meta() -> None:
    with pytest.warns(UserWarning, match="shadows"):

        class Hiding(Event, type="hiding"):
            meta: str  # type: ignore[assignment]  # the mistake

    flow = right()
    flow.on(Hiding, to="done")
    assert "hides the meta" in the_mistake(flow).message


def test_an_event_class_that_refers_to_nothing_is_named() -> None:
    class Broken(Event, type="broken"):
        part: Missing  # type: ignore[name-defined]  # noqa: F821 - the mistake

    flow = right()
    flow.on(Broken, to="done")
    assert (
        "Broken cannot be validated: PydanticUndefinedAnnotation: name 'Missing'" in the_mistake(flow).message
    )


def test_a_transition_takes_a_class_of_events() -> None:
    flow = right()
    state_of(flow, "open").on("asked", to="done")
    mistake = the_mistake(flow)
    assert mistake.message == "a transition takes a class of events, not 'asked'"
    assert mistake.state == "open"


@pytest.mark.parametrize("several", [[Asked, Ended], (Asked, Ended)])
def test_a_transition_takes_one_class_of_events(several: Any) -> None:
    flow = right()
    state_of(flow, "open").on(several, to="done")
    mistake = the_mistake(flow)
    assert mistake.message == "a transition takes one class of events, not several"
    assert mistake.cure.startswith(
        "Write a transition for each of them, or take a class whose type is a pattern"
    )


@pytest.mark.parametrize("name", ["", " ", "a b", "a\tb", "a\u00a0b", "nul\0", "lone \ud800", "x" * 256, 5])
def test_a_state_s_name_fits_into_a_configuration(name: Any) -> None:
    flow = right()
    made = flow.state(name)
    made.on(Ended, to="done")
    state_of(flow, "open").on(Asked, to=name)
    messages = [mistake.message for mistake in find_mistakes(flow)]
    assert messages[0].startswith(f"the state name {name!r} ")


@pytest.mark.parametrize("name", ["", "my flow", "nul\0", "x" * 256, None])
def test_a_pipeline_s_name_can_be_stored_and_shown(name: Any) -> None:
    assert the_mistake(right(name)).message.startswith(f"the pipeline name {name!r} ")


def test_no_transition_leads_out_of_a_final_state() -> None:
    flow = right()
    state_of(flow, "done").on(Asked, to="open")
    mistake = the_mistake(flow)
    assert mistake.message == "a transition leads out of the final state 'done', where runs have ended"
    assert (mistake.state, mistake.event) == ("done", "asked")


def test_all_mistakes_come_at_once_in_the_order_of_their_places() -> None:
    flow = right("two words", version=0)
    flow.state("island")
    state_of(flow, "open").on(Asked, to="dnoe", do=awaited)
    found = find_mistakes(flow)
    assert [mistake.place.line for mistake in found] == sorted(mistake.place.line for mistake in found)
    assert len(found) == 5
    with pytest.raises(DefinitionError, match=r"has 5 mistake\(s\)") as raised:
        compile_pipeline(flow)
    assert list(raised.value.mistakes) == found
    assert all(str(mistake) in str(raised.value) for mistake in found)


def test_warnings_alone_do_not_keep_a_pipeline_from_running() -> None:
    assert compile_pipeline(right(topics=[])).name == "right"


def test_a_place_in_a_shipped_pipeline_is_its_own_line() -> None:
    assert orders.place.file.endswith("shipped/orders.py")
    assert orders.states[0].place.line > orders.place.line
    event = orders.moves[0].event
    assert event is not None
    assert event.event_place().file == orders.place.file


def test_pipelines_loaded_together_have_names_of_their_own() -> None:
    first, second, newer = right(), right(), right(version=2)
    found = find_mistakes_across([first, second, newer])
    assert [mistake.message for mistake in found] == [f"pipeline 'right' version 1 is also at {first.place}"]
    assert found[0].place == second.place


def test_a_pipeline_loaded_twice_is_loaded_once() -> None:
    flow = right()
    assert find_mistakes_across([flow, flow]) == []


def test_pipelines_loaded_together_agree_on_the_settings_of_a_topic() -> None:
    first = right("first", topics=[Topic("shared", key="id")])
    second = right("second", topics=["shared", "own"])
    found = find_mistakes_across([first, second])
    assert [mistake.message for mistake in found] == [
        "the topic 'shared' is read with key=None, but with key='id' by 'first'"
    ]


def test_the_newest_version_of_a_pipeline_decides_how_a_topic_is_read() -> None:
    old = right(topics=[Topic("shared", key="id")])
    new = right(version=2, topics=[Topic("shared", key="number", type="what")])
    [found] = find_mistakes_across([new, old])
    assert (found.severity, found.place) == ("warning", new.place)
    assert found.message == (
        "the topic 'shared' is read with type='what', key='number', and no more with type='type', key='id', as "
        "version 1 of 'right' says"
    )
    assert find_mistakes_across([new]) == []


def test_different_pipelines_must_agree_with_the_newest_version_of_each() -> None:
    old, new = right(topics=["shared"]), right(version=2, topics=[Topic("shared", key="id")])
    agrees, does_not = (
        right("agrees", topics=[Topic("shared", key="id")]),
        right("does-not", topics=["shared"]),
    )
    assert [one.severity for one in find_mistakes_across([old, agrees, new])] == ["warning"]
    errors = [one for one in find_mistakes_across([old, does_not, new]) if one.severity == "error"]
    assert [one.message for one in errors] == [
        "the topic 'shared' is read with key=None, but with key='id' by 'right'"
    ]


@pytest.mark.parametrize("junk", [None, 5, "", "text", [], [None], {}, object(), lambda: None, Empty, b"x"])
def test_nothing_that_is_written_into_a_definition_makes_the_validator_raise(junk: Any) -> None:
    flow: Flow = Pipeline(junk, junk, version=junk, topics=junk, no_run=junk)
    state = flow.state(str(junk), initial=junk, final=junk)
    state.on(junk, to=junk, when=junk, do=junk)
    flow.on(junk, to=junk, when=junk, do=junk)
    flow.start(junk, junk, to=junk, do=junk)
    found = find_mistakes_across([flow, right()])
    assert all(mistake.message and mistake.cure for mistake in found)
    with pytest.raises(DefinitionError):
        compile_pipeline(flow)


def test_mistakes_of_each_pipeline_are_among_those_of_all() -> None:
    found = find_mistakes_across([right(), right("bad name")])
    assert [mistake.message for mistake in found] == ["the pipeline name 'bad name' has a space in it"]
