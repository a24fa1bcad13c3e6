"""Each kind of mistake in a definition: what is said of it, where it points, and that all come at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, field_serializer

from statemachines import Context, DefinitionError, Event, Mistake, Pipeline, Topic
from statemachines.machine import compile_pipeline
from statemachines.shipped.orders import flow as orders
from statemachines.validation import check, find_mistakes, find_mistakes_across

Flow = Pipeline[Any]
LONG = "x" * 240


class Empty(Context):
    pass


class Begun(Event, type="begun", key="name"):
    name: str


class Ended(Event, type="ended", key="name"):
    name: str


class Asked(Event, type="asked"):
    pass


def build(_event: Event) -> Empty:
    return Empty()


def yes(_context: Empty, _event: Event) -> bool:
    return True


def no(_context: Empty, _event: Event) -> bool:
    return False


def right(name: Any = "right", context: Any = Empty, **settings: Any) -> Flow:
    """A pipeline without mistakes, to which each test adds its own."""
    flow: Flow = Pipeline(name, context, topics=settings.pop("topics", ["things"]), **settings)
    flow.state("open", initial=True).on(Ended, to="done")
    flow.state("done", final=True)
    flow.start(Begun, build)
    return flow


def state_of(flow: Flow, name: str) -> Any:
    return next(state for state in flow.states if state.name == name)


def the_mistake(flow: Flow, severity: str = "error") -> Mistake:
    found = find_mistakes(flow)
    assert len(found) == 1, "\n".join(map(str, found)) or "no mistake was found"
    assert found[0].severity == severity
    return found[0]


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(at for at, line in enumerate(lines) if text in line)


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


def test_a_target_in_another_pipeline_is_not_taken_for_one_s_own() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to=state_of(right("other"), "done"))
    assert the_mistake(flow).message == "the target 'done' is a state of pipeline 'other'"


def test_a_target_that_is_no_name_is_unknown() -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to=["done"])
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


class Part(BaseModel):
    tags: frozenset[str] = frozenset()


def test_sets_are_found_anywhere_in_a_context_and_all_are_named() -> None:
    class WithSets(Context):
        plain: set[int]
        nested: dict[str, list[set[str] | None]]
        part: Part
        again: list[WithSets] = []  # noqa: RUF012 - pydantic copies defaults
        type: str = "set"
        fine: list[str] = []  # noqa: RUF012 - the same

    messages = [mistake.message for mistake in find_mistakes(right(context=WithSets))]
    assert messages == [
        f"the field {path!r} of the context WithSets holds a set" for path in ("nested", "part.tags", "plain")
    ]


def test_a_set_with_a_serializer_of_its_own_is_the_author_s_business() -> None:
    class Sorted(Context):
        tags: set[str]

        @field_serializer("tags")
        def in_order(self, tags: set[str]) -> list[str]:
            return sorted(tags)

    assert find_mistakes(right(context=Sorted)) == []


@pytest.mark.parametrize("context", [int, BaseModel, dict, Empty(), "Empty", None])
def test_a_context_is_a_subclass_of_context(context: Any) -> None:
    assert the_mistake(right(context=context)).message.endswith(
        "of pipeline 'right' is no subclass of Context"
    )


def test_a_context_that_refers_to_nothing_is_named() -> None:
    class Broken(Context):
        part: Missing  # type: ignore[name-defined]  # noqa: F821 - the mistake

    assert "the context Broken cannot be validated" in the_mistake(right(context=Broken)).message


@pytest.mark.parametrize("version", [0, -1, True, 1.5, "1", None, 2**31])
def test_a_version_is_a_positive_whole_number(version: Any) -> None:
    assert the_mistake(right(version=version)).message == f"the version of pipeline 'right' is {version!r}"


@pytest.mark.parametrize("setting", ["no_run", "unexpected", "closed"])
def test_a_policy_is_one_of_the_known_words(setting: str) -> None:
    mistake = the_mistake(right(**{setting: "ignroe"}))
    assert (mistake.message, mistake.cure) == (f"{setting}='ignroe' is no policy", "Did you mean 'ignore'?")


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ("orders", "topics='orders' is one topic where a list of them is wanted"),
        (Topic("orders"), "topics='orders' is one topic where a list of them is wanted"),
        (5, "topics=5 is no list of topics"),
        ([None], "topics=[None] is no list of topics"),
        (["a", Topic("b"), "a"], "the topic 'a' is named twice"),
        (["a b"], "the topic name 'a b' is none that Kafka takes"),
        ([".."], "the topic name '..' is none that Kafka takes"),
        ([""], "the topic name '' is empty"),
        (["x" * 250], f"the topic name {'x' * 250!r} is 250 characters long, of 249 allowed"),
        (
            [LONG],
            f"the dead-letter topic '{LONG}.dead-letters' of '{LONG}' is 253 characters long, of 249 allowed",
        ),
        ([Topic("a", unknown="ignor")], "unknown='ignor' of topic 'a' is no policy"),  # type: ignore[arg-type]  # the mistake
        ([Topic("a", dead_letters="b"), "b"], "pipeline 'right' reads 'b', to which its own dead letters go"),
        ([Topic("a", key="")], "key='' of topic 'a' names no header and no field"),
        ([Topic("a", type_default="")], "type_default='' of topic 'a' is no event type"),
    ],
)
def test_topics_are_legal_and_named_once(topics: Any, message: str) -> None:
    assert the_mistake(right(topics=topics)).message == message


def test_a_pipeline_that_reads_nothing_is_a_warning() -> None:
    assert the_mistake(right(topics=[]), "warning").message == "pipeline 'right' reads no topic"


async def awaited(_context: Empty, _event: Event) -> None: ...


async def builds(_event: Event) -> Empty:
    return Empty()


def one(_context: Empty) -> bool:
    return True


def three(_context: Empty, _event: Event, _more: int) -> bool:
    return True


def generating(_context: Empty, _event: Event) -> Iterator[bool]:
    yield True


class Callable2:
    def __call__(self, _context: Empty, _event: Event) -> bool:
        return True


class AsyncCallable:
    async def __call__(self, _context: Empty, _event: Event) -> bool:
        return True


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"do": 5}, "the action is not a function but 5"),
        ({"when": "yes"}, "the guard is not a function but 'yes'"),
        ({"do": awaited}, "the action awaited is async, but nothing awaits it"),
        ({"when": awaited}, "the guard awaited is async, but nothing awaits it"),
        ({"when": partial(awaited, Empty())}, "the guard awaited is async, but nothing awaits it"),
        ({"when": AsyncCallable()}, "the guard AsyncCallable is async, but nothing awaits it"),
        ({"when": one}, "the guard one(_context: 'Empty') -> 'bool' cannot be called with (context, event)"),
        ({"do": lambda: None}, "cannot be called with (context, event)"),
        ({"do": three}, "cannot be called with (context, event)"),
        ({"when": generating}, "the guard generating is a generator, which answers nothing by itself"),
    ],
)
def test_guards_and_actions_are_plain_functions_of_two(given: dict[str, Any], message: str) -> None:
    flow = right()
    state_of(flow, "open").on(Asked, **given)
    mistake = the_mistake(flow)
    assert message in mistake.message
    assert (mistake.state, mistake.event) == ("open", "asked")


@pytest.mark.parametrize(
    "given",
    [
        {"when": lambda _context, _event: True},
        {"when": Callable2()},
        {"when": partial(three, _more=1)},
        {"when": bool.__and__},
        {"do": generating},
        {"do": lambda *_anything: None},
        {"do": max},
    ],
)
def test_anything_that_can_be_called_with_two_will_do(given: dict[str, Any]) -> None:
    flow = right()
    state_of(flow, "open").on(Asked, **given)
    assert find_mistakes(flow) == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (builds, "the build function builds is async"),
        (yes, "cannot be called with (event)"),
        (Empty, "cannot be called with (event)"),
        (None, "the build function is not a function but None"),
    ],
)
def test_a_build_function_is_a_plain_function_of_one(function: Any, message: str) -> None:
    flow = right()
    flow.start(Asked, function)
    assert message in the_mistake(flow).message


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
    assert orders.moves[0].event.event_place().file == orders.place.file


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
