"""The Mermaid text of charts: states in states, regions, histories, and what Mermaid would not draw otherwise."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from statemachines import Defer, Event
from statemachines.diagram import to_mermaid
from tests.unit.charted import Said, nested, note, parallel
from tests.unit.mistaken import Asked, Empty, Ended, Flow, right, state_of, yes

INCIDENT = """\
---
title: "incident version 1"
---
stateDiagram-v2
  direction LR
  state "open" as open
  state "done" as done
  state "life<br>entry / note<br>exit / note" as life {
    direction LR
    state "H* all" as all
    state "work" as work {
      direction LR
      state "triage" as triage {
        direction LR
        state "new" as new
        state "seen" as seen
        state "H last" as last
        [*] --> new: / note
      }
      state "fixing" as fixing
      fixing: entry / note
      state begin_3 <<choice>>
    }
    --
    state "page" as page {
      direction LR
      state "quiet" as quiet
      state "answered" as answered
      answered: output / yes
      [*] --> quiet
      answered --> [*]
    }
  }
  state "paused" as paused
  [*] --> open: begun
  begin_3 --> triage: work begins
  last --> seen: default / note
  open --> done: ended
  open --> life: asked
  paused --> all: asked
  triage --> fixing: asked
  new --> seen: asked
  quiet --> answered: asked
  life --> life: said [internal]
  state fork_0 <<fork>>
  paused --> fork_0: said [yes]
  fork_0 --> last
  fork_0 --> answered
  triage --> triage: said [reenter]
  life --> done: done.state.life
  fixing --> triage: always [yes]
  done --> [*]
"""


def incident() -> Flow:
    flow = right("incident")
    life: Any = flow.state("life")
    life.entry(note)
    life.exit(note)
    work, page, paused = life.region("work"), life.region("page"), flow.state("paused")
    triage = work.state("triage", initial=True)
    triage.state("new").on(Asked, to=triage.state("seen"))
    triage.initially("new", do=note)
    fixing = work.state("fixing")
    fixing.entry(note)
    fixing.always(to=triage, when=yes)
    triage.on(Asked, to=fixing)
    triage.on(Said, to=triage, reenter=True)
    page.state("quiet", initial=True).on(Asked, to=page.state("answered", final=True, output=yes))
    state_of(flow, "open").on(Asked, to=life)
    life.on(Said, do=note)
    life.on(life.done, to="done")
    paused.on(Asked, to=life.history("all", deep=True))
    paused.on(Said, to=[triage.history("last", default="seen", do=note), "answered"], when=yes)
    return flow


def test_a_chart_is_drawn_with_all_that_it_has() -> None:
    assert to_mermaid(incident()) == INCIDENT


def test_what_a_state_with_states_does_stands_in_its_title() -> None:
    """Mermaid refuses further lines for it."""
    flow = nested()
    state_of(flow, "box").entry(note)
    text = to_mermaid(flow)
    assert 'state "box<br>entry / note" as box {' in text
    assert "box: entry" not in text


def test_only_the_states_directly_inside_are_named_within_a_state() -> None:
    """Mermaid draws a state in the last state within which it was named."""
    flow = nested()
    outer: Any = flow.state("outer")
    outer.state("inner").state("deep", initial=True).on(Asked, to="done")
    outer.initially("deep", do=note)
    outer.history("past", default="deep")
    state_of(flow, "open").on(Said, to="past")
    lines = to_mermaid(flow).splitlines()
    at = lines.index('  state "outer" as outer {')
    assert lines[at : lines.index("  }", at) + 1] == [
        '  state "outer" as outer {',
        "    direction LR",
        '    state "inner" as inner {',
        "      direction LR",
        '      state "deep" as deep',
        "      [*] --> deep",
        "    }",
        '    state "H past" as past',
        "    state begin_6 <<choice>>",
        "  }",
    ]
    assert "  begin_6 --> deep: outer begins / note" in lines
    assert "  past --> deep: default" in lines


def test_a_beginning_in_several_regions_is_a_fork() -> None:
    flow = right()
    outer: Any = flow.state("outer")
    both = outer.state("both")
    for side in ("left", "right"):
        both.region(side).state(f"{side}-1", initial=True).on(Asked, to="done")
    outer.initially(["left-1", "right-1"])
    state_of(flow, "open").on(Said, to=outer)
    lines = to_mermaid(flow).splitlines()
    assert "    state begin_2 <<fork>>" in lines
    assert "  begin_2 --> state_5: outer begins" in lines
    assert "  begin_2 --> state_7: outer begins" in lines


def test_a_start_in_several_regions_is_a_fork_too() -> None:
    flow = parallel()
    flow.start(Said, lambda _event: Empty(), to=["left-off", "right-on"])
    state_of(flow, "open").on(Said, to=["left-on", "right-off"])
    lines = to_mermaid(flow).splitlines()
    assert "  [*] --> fork_0: said" in lines
    assert "  state fork_1 <<fork>>" in lines
    ids = {line.split('"')[1]: line.split()[-1] for line in lines if line.strip().startswith('state "')}
    assert [line for line in lines if line.startswith("  fork_0 -->")] == [
        f"  fork_0 --> {ids['left-off']}",
        f"  fork_0 --> {ids['right-on']}",
    ]


def test_regions_are_parted_by_lines_and_histories_stand_with_the_first() -> None:
    flow = parallel()
    both = state_of(flow, "both")
    both.region("more").state("m", initial=True).on(Said, to="done")
    state_of(flow, "open").on(Said, to=both.history("past"))
    lines = [line.strip() for line in to_mermaid(flow).splitlines()]
    parts = [line for line in lines if line == "--" or line.endswith("{") or line.startswith('state "H')]
    assert parts == [
        'state "both" as both {',
        'state "H past" as past',
        'state "left" as left {',
        "--",
        'state "right" as right {',
        "--",
        'state "more" as more {',
    ]


@pytest.mark.parametrize(
    ("to", "label"),
    [
        ("box", "said [reenter]"),
        ("first", "said [reenter]"),
        ("done", "said"),
        (["first"], "said [reenter]"),
        (None, "said [internal]"),
    ],
)
def test_reenter_is_shown_where_it_makes_a_difference(to: Any, label: str) -> None:
    flow = nested()
    state_of(flow, "box").on(Said, to=to, reenter=True)
    target = to[0] if isinstance(to, list) else to or "box"
    assert f"  box --> {target}: {label}" in to_mermaid(flow).splitlines()


@pytest.mark.parametrize(
    "name",
    [
        "root",
        "scale",
        "accTitle",
        "box_start",
        "open_end",
        "state_1",
        "begin_2",
        "fork_0",
        "Note",
        "stateDiagram",
    ],
)
def test_ids_that_mermaid_or_the_drawing_uses_itself_are_replaced(name: str) -> None:
    flow = right()
    state_of(flow, "open").on(Asked, to=flow.state(name))
    state_of(flow, name).on(Asked, to="done")
    lines = to_mermaid(flow).splitlines()
    assert f'  state "{name}" as state_2' in lines
    assert "  open --> state_2: asked" in lines


def test_what_mermaid_would_take_for_its_own_is_escaped() -> None:
    flow = right()
    state_of(flow, "open").on(Event.named("100%%{x}; a:b"), to=flow.state("a[[fork]]", final=True))
    text = to_mermaid(flow)
    assert 'state "a#91;#91;fork#93;#93;" as state_2' in text
    assert "open --> state_2: 100#37;#37;{x}#59; a#58;b" in text


def test_states_around_each_other_and_unknown_beginnings_do_not_keep_the_rest_from_being_drawn() -> None:
    flow = nested()
    first, second = state_of(flow, "first"), state_of(flow, "second")
    first.parent, second.parent = second, first
    state_of(flow, "box").initially(["nowhere", "done"])
    second.on(Ended, to="first", reenter=True)
    text = to_mermaid(flow)
    assert 'state "box" as box {' in text
    assert "nowhere" not in text


@pytest.mark.parametrize(
    ("delay", "said"),
    [
        (timedelta(0), "after 0 s"),
        (timedelta(milliseconds=1500), "after 1.5 s"),
        (timedelta(minutes=5), "after 5 min"),
        (timedelta(days=1, hours=2, minutes=30, seconds=7), "after 1 d 2 h 30 min 7 s"),
        (yes, "after yes"),
    ],
)
def test_a_timer_says_when_and_has_guards_and_targets_like_any_other_transition(
    delay: Any, said: str
) -> None:
    flow = nested()
    state_of(flow, "first").after(delay, to="second", when=yes)
    state_of(flow, "first").after(delay)
    flow.after(delay, to="done")
    lines = to_mermaid(flow).splitlines()
    for line in (
        f"first --> second: {said} [yes]",
        f"first --> first: {said} [internal]",
        f"box --> done: {said}",
    ):
        assert f"  {line}" in lines


def test_what_a_state_defers_or_ignores_is_said_in_it() -> None:
    flow = nested()
    state_of(flow, "open").policy(Said, unexpected=Defer(timedelta(minutes=5)))
    state_of(flow, "open").policy(unexpected=Defer(timedelta(hours=1), then="ignore"))
    state_of(flow, "box").policy(Ended, unexpected="ignore")
    flow.policy(Said, unexpected="dead_letter")
    drawn = to_mermaid(flow)
    assert "  open: said / defer 5 min\n  open: unexpected / defer 1 h, then ignore\n" in drawn
    assert 'state "box<br>ended / ignore" as box {' in drawn
    assert "dead_letter" not in drawn
    state_of(flow, "open").policy(5, unexpected=Defer("soon"))  # type: ignore[arg-type]  # mistakes
    assert "  open: unexpected / defer soon\n" in to_mermaid(flow)
