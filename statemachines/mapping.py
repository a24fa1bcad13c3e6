"""Runs that go on by another definition, in which states and steps may have other names.

What a run waits for it knows by the names of its definition. Where that is there no more, it can follow another one, if
all that it is in, waits for and owes is there: under the same name, or under the one that it is mapped to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from statemachines.chart.microsteps import Spot
from statemachines.chart.tree import COMPENSATING, Chart, Kind, Node, numbers_of
from statemachines.events import AFTER_PREFIX
from statemachines.failing import describe_invalid
from statemachines.machine import Machine
from statemachines.memory import Delayed, Execution, Memory, Owed, read_memory, write_memory
from statemachines.renames import IS_UNDONE, Renames, renamed_timer, strange_state
from statemachines.run import BETWEEN, Run
from statemachines.step import Compensation
from statemachines.suggest import did_you_mean
from statemachines.undoing import places


class Mapped(NamedTuple):
    """Where a run is, and what it remembers, in the names of its new definition."""

    configuration: str
    memory: bytes
    """Empty: as it was."""


def mapped(machine: Machine, run: Run, renames: Renames) -> Mapped:
    """A run as it follows a definition in which all is that it needs (``misfits``). Raises KeyError: a state is not."""
    spot = machine.spots.spot_of(_renamed(run.configuration, renames))
    memory = b""
    if run.memory:
        before = read_memory(run.memory)
        after = _memory(before, renames)
        memory = b"" if after == before else write_memory(after)
    return Mapped(machine.spots.text_of(spot), memory)


def misfits(machine: Machine, run: Run, renames: Renames, others: Collection[str] = ()) -> list[str]:
    """What of a run does not fit a definition, each in a sentence without its end; nothing where it may follow it.

    ``others`` are its ``other_timers``.
    """
    memory = read_memory(run.memory)
    if places(memory):
        return [IS_UNDONE]
    return [
        *_of_configuration(machine, run, renames),
        *_of_steps(machine, _memory(memory, renames)),
        *_of_times(machine, _memory(memory, renames)),
        *_of_other_timers(machine, memory, others),
        *_of_context(machine, run),
    ]


def _renamed(configuration: str, renames: Renames) -> str:
    """Its text with other names: those of states and histories, and between them numbers, which no state is called."""
    active, between, remembered = configuration.partition(BETWEEN)
    names = " ".join(map(renames.state, active.split(" ")))
    words = remembered.split(" ") if remembered else []
    at, said = 0, list[str]()
    while at < len(words):
        many = int(words[at + 1])
        group = words[at + 2 : at + 2 + many]
        said += [renames.state(words[at]), words[at + 1], *map(renames.state, group)]
        at += 2 + many
    return names + between + " ".join(said)


def _memory(memory: Memory, renames: Renames) -> Memory:
    return memory._replace(
        delayed=tuple(_delayed(one, renames) for one in memory.delayed),
        executions=tuple(_execution(one, renames) for one in memory.executions),
        owed=tuple(_owed(one, renames) for one in memory.owed),
    )


def _delayed(one: Delayed, renames: Renames) -> Delayed:
    if not one.state:
        return one
    return one._replace(state=renames.state(one.state), type=renamed_timer(one.type, renames))


def _execution(one: Execution, renames: Renames) -> Execution:
    return one._replace(
        step=renames.step(one.step), state=renames.state(one.state), scope=renames.state(one.scope)
    )


def _owed(one: Owed, renames: Renames) -> Owed:
    return one._replace(step=renames.step(one.step), scope=renames.state(one.scope))


def _of_configuration(machine: Machine, run: Run, renames: Renames) -> Iterator[str]:
    chart, text = machine.microsteps.chart, _renamed(run.configuration, renames)
    active, _, _ = text.partition(BETWEEN)
    known = [node.name for node in chart.nodes[1:] if node.kind not in (Kind.HISTORY, Kind.COMPENSATING)]
    strange = [name for name in active.split(" ") if name not in known]
    for name in strange:
        yield strange_state(name, known, machine.version)
    if strange:
        return
    try:
        spot = machine.spots.spot_of(text)
    except KeyError as error:
        yield f"a history of it has to do with {error.args[0]!r}, which {_version(machine)} does not have"
        return
    if not _is_legal(chart, spot):
        yield f"{active!r} is not where a run of {_version(machine)} can be: its states stand otherwise there"


def _is_legal(chart: Chart, spot: Spot) -> bool:
    """Whether active states and histories are such as a run of this chart may have."""
    stands = all(_stands(chart.nodes[number], spot.active) for number in numbers_of(spot.active))
    remembers = zip(chart.history, spot.history, strict=True)
    return stands and all(
        not states & ~chart.nodes[chart.nodes[one].parent].inside for one, states in remembers
    )


def _stands(node: Node, active: int) -> bool:
    inside = [one for one in node.children if active >> one & 1]
    if node.number and not active >> node.parent & 1:
        return False
    if node.kind is Kind.PARALLEL:
        return len(inside) == len(node.children)
    return len(inside) == (1 if node.kind is Kind.COMPOUND else 0)


def _of_steps(machine: Machine, memory: Memory) -> Iterator[str]:
    works = machine.pipeline.works
    steps = [one.name for one in works if not isinstance(one, Compensation)]
    compensations = [one.name for one in works if isinstance(one, Compensation)]
    for one in memory.executions:
        known = compensations if one.of else steps
        what = "the compensation" if one.of else "the step"
        if one.step not in known:
            near = did_you_mean(one.step, known)
            yield f"it waits for {what} {one.step!r}, which {_version(machine)} does not have. {near}"
        elif one.stopping and one.step not in machine.compensations:
            yield f"it may have to undo {one.step!r}, which has no compensation in {_version(machine)}"
        elif one.state not in machine.microsteps.chart.numbers and one.state != COMPENSATING:
            yield f"it waits for {what} {one.step!r} of {one.state!r}, which is no state of {_version(machine)}"
    for step in dict.fromkeys(one.step for one in memory.owed):
        if step not in machine.compensations:
            near = did_you_mean(step, machine.compensations)
            yield f"it may have to undo {step!r}, for which {_version(machine)} has no compensation. {near}"
    scopes = dict.fromkeys([*(one.scope for one in memory.owed), *(one.scope for one in memory.executions)])
    for scope in scopes:
        if scope and scope not in machine.microsteps.chart.numbers:
            yield f"what it may have to undo belongs to {scope!r}, which is no state of {_version(machine)}"


def _of_times(machine: Machine, memory: Memory) -> Iterator[str]:
    chart = machine.microsteps.chart
    timers = {timer.event_type for node in chart.nodes for timer in node.timers}
    for one in memory.delayed:
        if not one.is_own:
            continue
        if one.data is None and one.type.startswith(AFTER_PREFIX):
            whose = f"the state {one.state!r}" if one.state else "the whole run"
            if one.type not in timers:
                yield f"a timer of {whose} goes on, which {_version(machine)} does not have"
        elif one.type not in machine.events:
            yield f"it has sent itself {one.type!r}, a type that {_version(machine)} does not know"


def _of_other_timers(machine: Machine, memory: Memory, others: Collection[str]) -> Iterator[str]:
    for one in memory.delayed:
        if one.is_own and one.data is None and one.type in others:
            yield f"its timer {one.type!r} leads elsewhere in {_version(machine)}"


def _of_context(machine: Machine, run: Run) -> Iterator[str]:
    try:
        machine.read_context(run.context)
    except BaseException as error:  # noqa: BLE001 - validators are user code
        said = describe_invalid(error).replace("the event's own validation", "its own validation")
        yield f"its context is none of {_version(machine)}: {said}"


def _version(machine: Machine) -> str:
    return f"version {machine.version}"
