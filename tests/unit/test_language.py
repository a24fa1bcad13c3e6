"""What the description of the language shows is true: its examples run, and its pictures are those of the examples."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from statemachines import After, Call, Defer, Event, limits
from statemachines.definition import Pipeline
from statemachines.diagram import to_mermaid
from statemachines.events import Meta
from statemachines.outcome import Reason
from statemachines.policies import SITUATIONS
from statemachines.testkit import given
from statemachines.validation import find_mistakes
from tests.fenced import blocks

TEXT = (Path(__file__).parents[2] / "statemachines" / "README.md").read_text("utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
SHOWN = [name for name, text in SECTIONS.items() if "```python" in text]


def run(name: str) -> tuple[dict[str, Any], list[str]]:
    """What the examples of a section define, and its pictures."""
    names: dict[str, Any] = {"__name__": "incidents"}
    beginning = TEXT.partition("\n## ")[0]
    for block in blocks(beginning + SECTIONS[name], "python"):
        exec(compile(block, "statemachines/README.md", "exec", dont_inherit=True), names)
    return names, blocks(SECTIONS[name], "mermaid")


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_runs_and_its_picture_is_its_own(name: str) -> None:
    names, drawn = run(name)
    flow = names["flow"]
    assert isinstance(flow, Pipeline)
    pipelines = [one for one in names.values() if isinstance(one, Pipeline)]
    found = [str(one) for pipeline in pipelines for one in find_mistakes(pipeline)]
    assert [one for one in found if "its runs never end" not in one] == []
    assert drawn == [to_mermaid(flow)]


def test_there_is_an_example_of_every_construct() -> None:
    assert len(SHOWN) == 28
    shown = "".join(block for name in SHOWN for block in blocks(SECTIONS[name], "python"))
    for word in (
        "report, when=",
        "region(",
        "history(",
        "deep=True",
        "default=",
        "initially(",
        "to=[",
        "event.data",
        "meta.is_in(",
        "description=",
        "always(",
        ".done",
        "entry(",
        "exit(",
        "Raise(",
        "in_state(",
        "reenter=",
        "Failed",
        '.*"',
        "has_tag(",
        "on_error=",
        "flow.key(",
        "Searchable()",
        ".after(",
        "-> datetime:",
        "after=",
        ", at=",
        "run=",
        "@flow.step(",
        ".failed_with(",
        ".timed_out",
        "on_failure(",
        "then_runs(",
        "heartbeat=",
        "call.heartbeat(",
        "call.progress",
        "within=",
        "Breaker(",
        "Limit(",
        ".compensate(",
        "compensate=True",
        "Compensate()",
        "Settle(",
        ".undone(",
        ".undoing_failed(",
        ".step_stopped(",
        ".step_later(",
        "Later(",
        ".then_owes(",
        ".call_of(",
        "Send(",
        "Cancel(",
        "Defer(",
        "OrderBy(",
        "contiguous=True",
        "kind=",
        "scope=",
        'no_run="start"',
        "duplicate_by=",
        'closed="restart"',
        "output=",
        "on_cancel(",
    ):
        assert word in shown, word


@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_table_of_policies_has_each_choice_and_default(situation: str) -> None:
    rows = [row.split("|") for row in SECTIONS["Policies"].splitlines() if f"| `{situation}` |" in row]
    [[_, _, _, choices, default, waits, then, _]] = rows
    assert {one for one in SITUATIONS[situation] if f"`{one}`" in choices} == set(SITUATIONS[situation])
    assert f"`{Pipeline.__dataclass_fields__[situation].default}`" in default
    if "defer" in SITUATIONS[situation]:
        assert timedelta(days=1) == Defer().ttl
        assert "a day" in waits
        assert f"`{Defer().then}` (default)" in then


def test_the_table_of_meta_has_all_that_is_known_of_an_event() -> None:
    cells = re.findall(r"(?m)^\| (`.*?) \| ", SECTIONS["What is known of an event"])[1:]
    named = [name for cell in cells for name in re.findall(r"`(\w+)", cell)]
    public = {name for name in dir(Meta) if not name.startswith("_")}
    assert set(named) == public - {"envelope", "active", "tagged", "count", "index"}


def test_a_name_that_no_state_has_shows_when_a_guard_asks_for_it_and_which_may_be_meant() -> None:
    names, _ = run("Regions")
    names["waiting"].on(names["Resumed"], when=lambda _incident, event: event.meta.is_in("mendd"))
    case = given(names["flow"], names["Reported"](incident="i1")).when(names["Resumed"](incident="i1"))
    case.then_refused(Reason.GUARD_FAILED, saying="no state 'mendd'. Did you mean 'mended'?", holds=True)


def test_functions_of_timers_are_given_the_event_that_the_page_names() -> None:
    names, _ = run("Time")
    given_to: list[Event] = []
    names["flow"].after(timedelta(minutes=1), do=lambda _incident, event: given_to.append(event))
    case = given(names["flow"], names["Reported"](incident="i1")).later(timedelta(minutes=1))
    assert (type(given_to[-1]).__base__, given_to[-1].meta.type) == (After, "after.1")
    assert [one for one, _ in case.later(timedelta(minutes=14)).followed] == ["after.new.0"]
    text = " ".join(SECTIONS["Time"].split())
    assert "given an `After`" in text
    assert "`after.new.0`" in text
    assert "`after.0`" in text


def test_the_next_generation_alone_begins_where_the_start_function_refuses_the_first() -> None:
    names, _ = run("Generations")
    reopened = names["Reopened"](incident="i1")
    given(names["reopening"]).when(reopened).then_refused(Reason.ACTION_FAILED, saying="nothing", holds=False)
    case = given(names["reopening"], names["Reported"](incident="i1"), names["Mended"](incident="i1"))
    case.when(reopened).then(state="open")
    assert case.run is not None
    assert case.run.generation == 1


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        ("no run", Reason.NO_RUN),
        ("closed", Reason.CLOSED),
        ("a gap", Reason.GAP),
        ("unexpected", Reason.UNEXPECTED),
    ],
)
def test_the_policies_say_by_which_reason_the_commands_know_a_situation(
    situation: str, reason: Reason
) -> None:
    assert f"*{situation}* is `{reason.value}`" in " ".join(SECTIONS["Policies"].split())


def test_the_table_of_limits_has_their_numbers() -> None:
    rows = [row for row in SECTIONS["Limits"].splitlines() if row.startswith("| `")]
    named = [(name, row) for row in rows for name in re.findall(r"`([A-Z_]+_MAX)`", row)]
    assert {
        "DELAYED_MAX",
        "EXECUTIONS_MAX",
        "PROGRESS_BYTES_MAX",
        "DEFERRED_MAX",
        "SEEN_MAX",
        "STREAMS_MAX",
        "MEMORY_BYTES_MAX",
        "FOLLOWING_MAX",
    } <= {name for name, _ in named}
    for name, row in named:
        assert f"{getattr(limits, name):,}" in row, name


@pytest.mark.parametrize("name", ["History", "An incident"])
def test_one_resume_too_many_ends_no_later_pause(name: str) -> None:
    names, _ = run(name)
    suspended, resumed = names["Suspended"](incident="i1"), names["Resumed"](incident="i1")
    case = given(names["flow"], names["Reported"](incident="i1"), names["Taken"](incident="i1", by="ada"))
    case.when(suspended, resumed, resumed).then_ignored(Reason.UNEXPECTED)
    case.when(suspended).then(state="pause")


def test_all_that_a_step_is_given_of_its_attempt_has_its_row() -> None:
    table = SECTIONS["Steps"].partition("| of `Call` |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)[`(]", "".join(line.split(" | ")[0] for line in table.splitlines())))
    assert named == {name for name in dir(Call) if not name.startswith("_")} - {"beat"}
