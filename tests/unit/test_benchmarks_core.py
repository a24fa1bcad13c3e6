"""The machines that the pure core is compared on do the same in every library, and need no servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cases.core import MATCHES, OURS, Match, agree
from benchmarks.machines import ours
from benchmarks.machines.player import FLAT_EVENTS, FLAT_STATES, INNERMOST, NESTED_EVENTS
from benchmarks.processes import MeasuringError

CHECKOUT = Path(__file__).parents[2]
NOWHERE = {"BENCHMARK_KAFKA": "127.0.0.1:1", "BENCHMARK_POSTGRES": "postgresql://nobody@127.0.0.1:1/nothing"}
SECONDS_MAX = 120


@pytest.mark.parametrize("match", MATCHES, ids=lambda match: match.name)
def test_all_libraries_go_through_the_same_states(match: Match) -> None:
    players = {name: make(writing=match.writing) for name, make in match.makes.items()}
    seen = set()
    for event in match.events:
        for player in players.values():
            player.play([event], 1)
        states = {player.states for player in players.values()}
        assert len(states) == 1, f"after {event!r}: {states}"
        seen |= set(states.pop())
    assert len(seen) >= len(FLAT_STATES)
    assert seen <= INNERMOST
    players[OURS].play(match.events, 3)
    assert players[OURS].moves == (4 * len(match.events) if match.writing else 0) + _taken_twice(match)


def _taken_twice(match: Match) -> int:
    """An event that both regions take is two actions."""
    return 4 * match.events.count("renew") if match.writing else 0


def test_the_nested_machine_is_moved_within_its_regions_and_across_its_levels() -> None:
    player = ours.nested(writing=False)
    way = []
    for event in NESTED_EVENTS:
        player.play([event], 1)
        way.append(" ".join(sorted(player.states)))
    assert way == [
        "unpacked unpaid",
        "paid unpacked",
        "boxed paid",
        "booked boxed",
        "booked sent",
        "unpacked unpaid",
        "boxed unpaid",
        "boxed paid",
        "idle",
        "unpacked unpaid",
        "idle",
    ]


def test_a_machine_that_does_something_else_is_not_measured() -> None:
    match = MATCHES[0]
    other = ours.flat(writing=False)
    other.play([FLAT_EVENTS[0]], 1)
    other.play(FLAT_EVENTS[1:], 1)
    with pytest.raises(MeasuringError, match="did different numbers of actions"):
        agree({OURS: other, "another": ours.flat(writing=True)}, match)


def test_an_event_that_is_not_taken_ends_the_measuring() -> None:
    with pytest.raises(MeasuringError, match=r"order\.pack was not taken in placed"):
        ours.flat(writing=False).play(["pack"], 1)


def test_the_case_runs_without_servers(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "core", "--smoke", "--json", report],
        cwd=CHECKOUT,
        env=os.environ | NOWHERE,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(report.read_text())["cases"].values()
    assert {figure["name"]: figure["goal"] for figure in case["figures"]} == {
        "flat: ours / transitions": "at least 5",
        "flat, writing: ours / transitions": "at least 3",
        "nested: ours / HierarchicalMachine": "at least 3",
        "nested: ours / python-statemachine": "at least 20",
    }
    assert all(figure["value"] > 0 for figure in case["figures"])
    assert len(case["table"]) == 12
