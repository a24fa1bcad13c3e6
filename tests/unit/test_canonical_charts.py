"""The identity of a chart: what its structure hash and its code hash see, and what they do not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from statemachines import Event, Failed, has_tag, in_state
from statemachines.canonical import canonical_bytes
from statemachines.codehash import code_hash
from statemachines.definition import Initial
from statemachines.loading import find_pipelines
from statemachines.places import Place
from statemachines.validation import check
from tests.unit.charted import Said, nested, note, with_histories
from tests.unit.mistaken import Asked, Flow, right, state_of, yes

ROOT = Path(__file__).parents[2]

SAY = """
import hashlib, sys
from statemachines.canonical import canonical_bytes
from statemachines.codehash import code_hash
from statemachines.loading import find_pipelines
for pipeline in find_pipelines(sys.argv[1]):
    print(hashlib.sha256(canonical_bytes(pipeline)).hexdigest(), code_hash(pipeline).hex())
"""

CHART = '''
from __future__ import annotations
from statemachines import Context, Event, Failed, Pipeline, in_state
from helping import helper

class Begun(Event, type="begun", key="name"):
    name: str

class Box(Context):
    log: list[str] = []

def build(event):
    return Box()

def entered(box, event):
    """Entry."""
    box.log.append("entered")

def left(box, event):
    box.log.append("left")

def begun(box, event):
    box.log.append("begun")

def recalled(box, event):
    box.log.append("recalled")

def told(box, event):
    return {"log": helper(box.log)}

go, back = Event.named("go"), Event.named("back")
flow = Pipeline("chart", Box, topics=["b"])
idle = flow.state("idle", initial=True)
life = flow.state("life")
left_side, right_side = life.region("left"), life.region("right")
for side in (left_side, right_side):
    first = side.state(f"{side}-1")
    last = side.state(f"{side}-2", final=True, output=told)
    first.on(go, to=last)
    first.entry(entered)
    first.exit(left)
    side.initially(first, do=begun)
past = life.history("past", deep=True, default=["left-1", "right-2"], do=recalled)
idle.on(go, to=past)
idle.on(back, to=["left-2", "right-1"])
life.always(to=idle, when=in_state("right-2"))
life.on(back, to=idle)
life.on(life.done, to=flow.state("done", final=True))
flow.on(Failed, to="done")
flow.start(Begun, build)
'''

HELPING = """
def helper(log):
    return sorted(log)
"""


def structure(flow: Flow) -> bytes:
    return hashlib.sha256(canonical_bytes(flow)).digest()


def put_into(flow: Flow, name: str, around: str) -> None:
    state_of(flow, name).parent = state_of(flow, around)


def move_of(flow: Flow, source: str) -> int:
    return next(at for at, move in enumerate(flow.moves) if move.source == source)


def changed(flow: Flow, source: str, **fields: Any) -> None:
    at = move_of(flow, source)
    old = flow.moves[at]
    names = ("source", "event", "targets", "guard", "action", "place", "reenter")
    values = {name: getattr(old, name) for name in names}
    flow.moves[at] = type(old)(**(values | fields))


def started(flow: Flow, *targets: str) -> None:
    flow.starts[0] = replace(flow.starts[0], targets=targets)


def again(_context: Any, _event: Any) -> None: ...


CHANGES: dict[str, Callable[[Flow], Any]] = {
    "parent": lambda flow: put_into(flow, "away", "left"),
    "kind": lambda flow: setattr(state_of(flow, "left"), "kind", "state"),
    "history": lambda flow: setattr(state_of(flow, "left-on"), "kind", "history"),
    "deep": lambda flow: setattr(state_of(flow, "all"), "deep", False),
    "default": lambda flow: setattr(state_of(flow, "last"), "beginning", None),
    "default elsewhere": lambda flow: setattr(
        state_of(flow, "last"), "beginning", Initial(("left-on",), note, Place("", 0))
    ),
    "default with another action": lambda flow: setattr(
        state_of(flow, "last"), "beginning", Initial(("left-off",), again, Place("", 0))
    ),
    "default of several in another order": lambda flow: setattr(
        state_of(flow, "either"), "beginning", Initial(("right-off", "left-off"), None, Place("", 0))
    ),
    "entry": lambda flow: state_of(flow, "left").entry(note),
    "second entry": lambda flow: state_of(flow, "both").entry(again),
    "entries in another order": lambda flow: state_of(flow, "away").entries.reverse(),
    "exit": lambda flow: state_of(flow, "left").exit(note),
    "exits in another order": lambda flow: state_of(flow, "away").exits.reverse(),
    "exit for entry": lambda flow: state_of(flow, "left-on").exits.append(
        state_of(flow, "left-on").entries.pop()
    ),
    "output": lambda flow: setattr(state_of(flow, "left-off"), "output", note),
    "initially": lambda flow: state_of(flow, "right").initially("right-on"),
    "initial": lambda flow: setattr(state_of(flow, "left-on"), "initial", False),
    "final": lambda flow: setattr(state_of(flow, "left-off"), "final", False),
    "one more target": lambda flow: changed(flow, "left-on", targets=("left-off", "right-off")),
    "targets in another order": lambda flow: changed(flow, "more", targets=("right-on", "left-on")),
    "another second target": lambda flow: changed(flow, "more", targets=("left-on", "right-off")),
    "one target less": lambda flow: changed(flow, "more", targets=("left-on",)),
    "reenter": lambda flow: changed(flow, "left-on", reenter=True),
    "guard on a state": lambda flow: changed(flow, "left-on", guard=in_state("right-on")),
    "guard on another state": lambda flow: changed(flow, "left-on", guard=in_state("right-off")),
    "eventless": lambda flow: changed(flow, "left-on", event=None),
    "done": lambda flow: changed(flow, "left-on", event=state_of(flow, "both").done),
    "failed": lambda flow: changed(flow, "left-on", event=Failed),
    "one more eventless": lambda flow: state_of(flow, "away").always(to="done", when=yes),
    "tags": lambda flow: setattr(state_of(flow, "left-on"), "tags", ("a", "b")),
    "other tags": lambda flow: setattr(state_of(flow, "left-on"), "tags", ("a",)),
    "tags elsewhere": lambda flow: setattr(state_of(flow, "left"), "tags", ("a",)),
    "guard on a tag": lambda flow: changed(flow, "left-on", guard=has_tag("a")),
    "going on after failures": lambda flow: setattr(flow, "on_error", "ignore"),
    "a pattern": lambda flow: changed(flow, "left-on", event=Event.named("said.*")),
    "a start in two regions": lambda flow: started(flow, "left-off", "right-off"),
    "the same in another order": lambda flow: started(flow, "right-off", "left-off"),
    "a start in one of them": lambda flow: started(flow, "left-off"),
    "one more region": lambda flow: state_of(flow, "both").region("more-of-it"),
}


def all_of_it() -> Flow:
    flow = with_histories()
    both, away, more = state_of(flow, "both"), state_of(flow, "away"), flow.state("more")
    both.entry(note)
    both.exit(note)
    state_of(flow, "left-on").entry(note)
    for handler in (note, again):
        away.entry(handler)
        away.exit(handler)
    more.on(Asked, to=["left-on", "right-on"])
    away.on(Asked, to=more, when=yes)
    return flow


def test_structures_of_equal_charts_are_equal() -> None:
    assert structure(all_of_it()) == structure(all_of_it())


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_structure_shows_every_change_of_a_chart(change: Callable[[Flow], Any]) -> None:
    flow = all_of_it()
    change(flow)
    assert structure(flow) != structure(all_of_it())


def test_all_changes_differ_from_each_other() -> None:
    seen = set()
    for change in CHANGES.values():
        flow = all_of_it()
        change(flow)
        seen.add(structure(flow))
    assert len(seen) == len(CHANGES)


def test_descriptions_and_places_of_a_chart_do_not_matter() -> None:
    flow = all_of_it()
    for state in flow.states:
        state.description, state.place = "otherwise", Place("elsewhere.py", 1)
        state.entries[:] = [(handler, Place("elsewhere.py", 2)) for handler, _ in state.entries]
        state.exits[:] = [(handler, Place("elsewhere.py", 3)) for handler, _ in state.exits]
        if state.beginning is not None:
            targets, action = state.beginning.targets, state.beginning.action
            state.beginning = Initial(targets, action, Place("elsewhere.py", 4))
    for source in ("left-on", "more"):
        changed(flow, source, place=Place("elsewhere.py", 5))
    assert structure(flow) == structure(all_of_it())


def test_names_and_objects_say_the_same() -> None:
    one, other = nested(), nested()
    state_of(one, "open").on(Said, to=[state_of(one, "second")])
    state_of(other, "open").on(Said, to="second")
    state_of(one, "box").history("past", default=state_of(one, "first"))
    state_of(other, "box").history("past", default=["first"])
    assert structure(one) == structure(other)


def test_what_a_flat_pipeline_does_not_have_is_not_in_its_form() -> None:
    form = orjson.loads(canonical_bytes(right()))
    assert form["states"] == [
        {"name": "open", "initial": True, "final": False},
        {"name": "done", "initial": False, "final": True},
    ]
    assert set(form["moves"][0]) == {"source", "event", "target", "guard", "action"}


def test_the_form_of_a_chart_says_all_by_name() -> None:
    form = orjson.loads(canonical_bytes(all_of_it()))
    by_name = {state["name"]: state for state in form["states"]}
    assert by_name["all"] == {
        "name": "all",
        "initial": False,
        "final": False,
        "parent": "both",
        "kind": "history",
        "deep": True,
    }
    assert by_name["last"]["initially"] == [["left-off"], "note"]
    assert by_name["away"]["entries"] == ["note", "again"]
    assert [move["targets"] for move in form["moves"] if move["source"] == "more"] == [
        ["left-on", "right-on"]
    ]
    assert "done.state.both" in form["events"]


def loaded(folder: Path, text: str = CHART, helping: str = HELPING) -> Flow:
    """The pipeline of a module of its own, with a module of helpers beside it."""
    here = folder / f"v{len(list(folder.iterdir()))}"
    here.mkdir()
    (here / "charting.py").write_text(text)
    (here / "helping.py").write_text(helping)
    before = list(sys.path)
    sys.path.insert(0, str(here))
    try:
        [flow] = find_pipelines(str(here / "charting.py"))
        check(flow)
        return flow
    finally:
        sys.path[:] = before


def hash_of(folder: Path, text: str = CHART, helping: str = HELPING) -> tuple[bytes, bytes]:
    """The structure hash and the code hash, taken while the modules are still loaded."""
    try:
        flow = loaded(folder, text, helping)
        return structure(flow), code_hash(flow)
    finally:
        for name in ("charting", "helping"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('append("entered")', 'append("came")'),
        ('append("left")', 'append("went")'),
        ('append("begun")', 'append("began")'),
        ('append("recalled")', 'append("remembered")'),
        ('{"log": helper', '{"logs": helper'),
    ],
    ids=["entry", "exit", "initially", "history", "output"],
)
def test_a_change_of_what_a_state_does_changes_the_code_hash_alone(
    tmp_path: Path, old: str, new: str
) -> None:
    assert CHART.count(old) == 1
    before, after = hash_of(tmp_path), hash_of(tmp_path, CHART.replace(old, new))
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_helpers_of_an_output_count(tmp_path: Path) -> None:
    assert hash_of(tmp_path)[1] != hash_of(tmp_path, CHART, HELPING.replace("sorted", "list"))[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    """Entry."""\n', ""),
        ('    box.log.append("left")', '    # left\n    box.log.append(\n        "left"\n    )'),
        ('flow.state("life")', 'flow.state("life", description="all of it")'),
    ],
)
def test_comments_docstrings_layout_and_descriptions_change_neither_hash(
    tmp_path: Path, old: str, new: str
) -> None:
    assert CHART.count(old) == 1
    assert hash_of(tmp_path) == hash_of(tmp_path, CHART.replace(old, new))


def test_hashes_of_a_chart_are_equal_in_other_processes_and_with_other_hash_seeds(tmp_path: Path) -> None:
    here = [found.hex() for found in hash_of(tmp_path)]
    assert all(said(tmp_path / "v0", seed) == here for seed in ("0", "1", "4711"))


def said(folder: Path, seed: str) -> list[str]:
    """What another process says of the chart in a folder."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "PYTHONHASHSEED": seed,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", SAY, str(folder / "charting.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
