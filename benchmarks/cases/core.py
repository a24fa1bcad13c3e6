"""The pure core beside other libraries: events a second in one process, by turns."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.cases.case import Alone
from benchmarks.machines import ours, theirs
from benchmarks.machines.player import FLAT_EVENTS, NESTED_EVENTS, Player
from benchmarks.measuring import median_ratio
from benchmarks.processes import MeasuringError
from benchmarks.report import Figure, Section, shown

OURS, FLAT, NESTED, CHART = "ours", "transitions", "HierarchicalMachine", "python-statemachine"
CHUNK_SECONDS = 0.005
"""Between two looks at the clock, about."""
Make = Callable[..., Player]


@dataclass(frozen=True, slots=True)
class Match:
    """One machine, with and without an action, in each library."""

    name: str
    events: Sequence[str]
    makes: Mapping[str, Make]
    writing: bool
    goals: Mapping[str, float]
    """How many times as quick ours is to be, by library."""


FLAT_MAKES = {OURS: ours.flat, FLAT: theirs.transitions_flat, CHART: theirs.statemachine_flat}
NESTED_MAKES = {OURS: ours.nested, NESTED: theirs.transitions_nested, CHART: theirs.statemachine_nested}
MATCHES = (
    Match("flat", FLAT_EVENTS, FLAT_MAKES, writing=False, goals={FLAT: 5}),
    Match("flat, writing", FLAT_EVENTS, FLAT_MAKES, writing=True, goals={FLAT: 3}),
    Match("nested", NESTED_EVENTS, NESTED_MAKES, writing=False, goals={NESTED: 3, CHART: 20}),
    Match("nested, writing", NESTED_EVENTS, NESTED_MAKES, writing=True, goals={}),
)
NOTE = (
    "Ours writes the context to JSON where an action is done, and makes sure that the same would be read back; it "
    "finds duplicates, and makes a new run for each event. The others change a model in place. Seconds are of CPU, "
    "of the thread. A ratio is the median of the ratios of neighbours."
)


async def core(bench: Alone) -> Section:
    """Each machine in each library, by turns."""
    found, sizes = {}, bench.sizes
    for match in MATCHES:
        rates = await asyncio.to_thread(measure, match, sizes.rounds * sizes.core_turns, sizes.core_seconds)
        found[match.name] = rates
        told = ", ".join(f"{name} {shown(median(each))}/s" for name, each in rates.items())
        bench.tell(f"  {match.name}: {told}")
    return Section(
        "core",
        "the pure core beside other libraries, in one process",
        ("", "events/s, median", "least", "most", "ours / it"),
        [row for match in MATCHES for row in _rows(match.name, found[match.name])],
        [
            Figure(f"{match.name}: ours / {other}", ratio(found[match.name], other), "at least", goal)
            for match in MATCHES
            for other, goal in match.goals.items()
        ],
        [NOTE],
        {"turns": found},
    )


def measure(match: Match, turns: int, seconds: float) -> dict[str, list[float]]:
    """Events a second of CPU in each turn, by library. Raises MeasuringError if the libraries differ."""
    players = {name: make(writing=match.writing) for name, make in match.makes.items()}
    agree(players, match)
    times = {name: _times(player, match.events) for name, player in players.items()}
    found: dict[str, list[float]] = {name: [] for name in players}
    for _ in range(turns):
        for name, player in players.items():
            found[name].append(_rate(player, match.events, times[name], seconds))
    return found


def agree(players: Mapping[str, Player], match: Match) -> None:
    """After each event, all of them are in the same states; and all have done as many actions."""
    for event in (*match.events, *match.events):
        for player in players.values():
            player.play([event], 1)
        states = {name: sorted(player.states) for name, player in players.items()}
        if any(each != states[OURS] for each in states.values()):
            raise MeasuringError(f"after {event!r} of {match.name!r} the libraries differ: {states}")
    moves = {name: player.moves for name, player in players.items()}
    if any(each != moves[OURS] for each in moves.values()) or bool(moves[OURS]) != match.writing:
        raise MeasuringError(f"in {match.name!r} the libraries did different numbers of actions: {moves}")


def ratio(rates: Mapping[str, Sequence[float]], other: str) -> float:
    """How many times as quick ours is."""
    return median_ratio(rates[OURS], rates[other])


def _times(player: Player, events: Sequence[str]) -> int:
    """How often these events fit between two looks at the clock."""
    began = time.thread_time()
    player.play(events, 5)
    return max(1, round(CHUNK_SECONDS / max(time.thread_time() - began, 1e-6) * 5))


def _rate(player: Player, events: Sequence[str], times: int, seconds: float) -> float:
    gc.collect()
    taken, began, passed = 0, time.thread_time(), 0.0
    while passed < seconds:
        player.play(events, times)
        taken += times * len(events)
        passed = time.thread_time() - began
    return taken / passed


def _rows(name: str, rates: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, ...]]:
    for library, each in rates.items():
        quicker = "" if library == OURS else f"{ratio(rates, library):.1f}"
        yield f"{name}: {library}", shown(median(each)), shown(min(each)), shown(max(each)), quicker
