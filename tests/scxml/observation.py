"""What one macrostep of an oracle shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """An internal event. `data` are names and values, in the order of the final state's `donedata`."""

    name: str
    data: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Microstep:
    """One microstep, to explain a difference by: the event (None: eventless), what was left and entered, in order."""

    event: str | None
    exited: tuple[str, ...]
    entered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """The outcome of a macrostep: of the start, or of one event from outside."""

    configuration: frozenset[str]
    """Ids of all active states, without the root.

    Of a machine that has finished: those that were active when it did, though the text then leaves them all.
    """
    atomic: frozenset[str]
    """Of these, the atomic and final ones."""
    log: tuple[str, ...]
    """Labels logged by this macrostep, in order."""
    farewell: tuple[str, ...]
    """Labels logged after it by the exit handlers that run because the machine has finished (`exit_interpreter`)."""
    variables: dict[str, int]
    raised: tuple[Event, ...]
    """Events put into the internal queue, in order, those included that matched nothing or were never taken."""
    untaken: tuple[Event, ...]
    """Of these, the ones that enabled nothing, in order, and last those that still waited when the machine ended."""
    history: dict[str, frozenset[str]]
    """For each history that has a memory, the ids of what it would restore."""
    accepted: bool
    """Whether the event enabled a transition. A start is accepted."""
    finished: bool
    output: tuple[tuple[str, int], ...]
    """The data of the root's done event, once finished."""
    microsteps: tuple[Microstep, ...]
