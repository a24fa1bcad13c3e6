"""Tags of states: guards and handlers ask for them, the picture and the canonical form show them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from statemachines import Event, has_tag
from statemachines.canonical import canonical_bytes
from statemachines.diagram import to_mermaid
from statemachines.outcome import Reason
from statemachines.testkit import given
from tests.unit.charted import Said, nested, parallel
from tests.unit.mistaken import Asked, Begun, Ended, Flow, right, state_of, the_mistake


def tagged(flow: Flow, name: str, *tags: str) -> Any:
    state = state_of(flow, name)
    state.tags = tags
    return state


def test_a_guard_holds_while_any_active_state_has_the_tag() -> None:
    flow = parallel()
    both, _ = tagged(flow, "both", "open"), tagged(flow, "right-off", "settled", "open")
    state_of(flow, "left-on").on(Said, to="left-off", when=has_tag("settled"))
    both.on(Ended, to="done", when=has_tag("open"))
    case = given(flow, Begun(name="n"), Asked()).when(Said())
    case.then_deferred(Reason.UNEXPECTED)
    tried = getattr(case.outcome, "tried", ())
    assert [one.guard for one in tried] == ["has_tag(settled)"]
    flow.moves = [one for one in flow.moves if one.source != "left-on" or one.event is not Asked]
    case = given(flow, Begun(name="n"), Asked(), Asked(), Said())
    case.then(ended=True)


@pytest.mark.parametrize("flat", [True, False])
def test_an_event_may_ask_for_tags_of_where_its_run_is(*, flat: bool) -> None:
    seen: list[bool] = []
    flow = right()
    open_ = tagged(flow, "open", "going")
    tagged(flow, "done", "gone")
    if not flat:
        open_.entry(lambda _context, _event: None)

    def ask(_context: Any, event: Event) -> None:
        seen.extend(event.meta.has_tag(tag) for tag in ("going", "gone"))

    open_.on(Asked, do=ask)
    open_.on(Said, to="done", do=ask)
    given(flow, Begun(name="n"), Asked(), Said())
    assert seen == [True, False, True, False, False, False, False, False]
    open_.on(Event.named("odd"), do=lambda _context, event: event.meta.has_tag("goin") and None)
    case = given(flow, Begun(name="n")).when(Event.named("odd")())
    case.then_refused(
        Reason.ACTION_FAILED, saying="no state of the pipeline has the tag 'goin'. Did you mean 'going'?"
    )


def test_tags_are_given_with_the_states() -> None:
    flow = right()
    box = flow.state("box", tags=["a"])
    region = box.region("left", tags=("b", "c"))
    assert [one.tags for one in (box, region, region.state("in", tags=["d"]))] == [("a",), ("b", "c"), ("d",)]
    assert state_of(flow, "open").tags == ()


def test_the_picture_shows_tags_as_it_shows_entry_actions() -> None:
    flow = nested()
    tagged(flow, "box", "open", "bill[able]")
    tagged(flow, "first", "a:b")
    text = to_mermaid(flow)
    assert 'state "box<br>tags / open, bill#91;able#93;" as box {' in text
    assert "first: tags / a#58;b" in text


def test_the_canonical_form_has_tags_where_there_are_some_and_their_order_is_nothing() -> None:
    forms = []
    for tags in (("a", "b"), ("b", "a"), ("b",)):
        flow = right()
        tagged(flow, "open", *tags)
        forms.append(canonical_bytes(flow))
    assert forms[0] == forms[1] != forms[2]
    assert [one.get("tags") for one in orjson.loads(forms[0])["states"]] == [["a", "b"], None]
    guarded = right()
    tagged(guarded, "open", "a")
    state_of(guarded, "open").on(Said, when=has_tag("a"))
    assert orjson.loads(canonical_bytes(guarded))["moves"][-1]["guard"] == "has_tag(a)"


def test_guards_on_one_tag_are_one_guard() -> None:
    assert has_tag("a") == has_tag("a") != has_tag("b")
    assert len({has_tag("a"), has_tag("a")}) == 1


def test_a_tag_that_no_state_has_is_a_mistake() -> None:
    flow = right()
    tagged(flow, "open", "billable")
    state_of(flow, "open").on(Said, when=has_tag("bilable"))
    mistake = the_mistake(flow)
    assert mistake.message == "the guard asks for the tag 'bilable', which no state has"
    assert mistake.cure == "Did you mean 'billable'?"
    assert (mistake.state, mistake.event) == ("open", "said")


def test_a_tag_of_states_that_are_never_active_meanwhile_is_a_mistake() -> None:
    flow = nested()
    tagged(flow, "first", "early")
    state_of(flow, "second").on(Said, when=has_tag("early"))
    assert the_mistake(flow).message == (
        "the guard asks for the tag 'early', which no state has that is active while 'second' is"
    )


def test_a_guard_on_a_tag_of_the_state_itself_always_holds() -> None:
    flow = right()
    tagged(flow, "open", "going").on(Said, when=has_tag("going"))
    state_of(flow, "open").on(Said, to="done")
    assert "comes first and has a guard that always holds" in the_mistake(flow).message


@pytest.mark.parametrize(
    ("tags", "wrong"),
    [
        ("open", None),
        (["two words"], "the tag 'two words' of the state 'more' has a space in it"),
        (["a", "a"], "the tag 'a' of the state 'more' is named twice"),
        ([""], "the tag '' of the state 'more' is empty"),
        ([5], "the tag 5 of the state 'more' is not text but int"),
        (5, "the tag 5 of the state 'more' is not text but int"),
        ([[]], "the tag [] of the state 'more' is not text but list"),
    ],
)
def test_what_is_no_tag_is_a_mistake(tags: Any, wrong: str | None) -> None:
    flow = right()
    more = flow.state("more", tags=tags)
    more.on(Said, to="done")
    state_of(flow, "open").on(Said, to=more)
    if wrong is None:
        assert more.tags == ("open",)
    else:
        assert the_mistake(flow).message == wrong
