"""The tables of a store in memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime

from connectors.source import Partition
from engine.log import LogRow
from engine.store.values import Command, DeadLetter, Noted, Operation, Pause
from statemachines.run import Run
from statemachines.search import Attributes
from tests.fakes.executions import Executions

CLUSTER = "c"
"""The cluster of all positions here."""


@dataclass(slots=True)
class Place:
    """A row of positions."""

    id: int
    position: int
    epoch: int = 0
    record_time: int = 0
    topic_id: str = ""


@dataclass(slots=True)
class Tables:
    """What all stores on one database share."""

    pipelines: dict[str, int] = field(default_factory=dict)
    definitions: dict[tuple[int, int, bytes, bytes], int] = field(default_factory=dict)
    places: dict[Partition, Place] = field(default_factory=dict)
    runs: dict[int, tuple[int, Run]] = field(default_factory=dict)
    rows: dict[tuple[int, int], LogRow] = field(default_factory=dict)
    taken_ids: set[tuple[int, int]] = field(default_factory=set)
    waiting: dict[tuple[int, int], tuple[int, datetime | None]] = field(default_factory=dict)
    waiting_ids: dict[tuple[int, int], int] = field(default_factory=dict)
    """Digests of source and id of those that wait and are known by business keys."""
    letters: dict[int, tuple[DeadLetter, str]] = field(default_factory=dict)
    noted: list[Noted] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    inbox: dict[int, Command] = field(default_factory=dict)
    commands: int = 0
    """The number of the last command that was put into the inbox."""
    attributes: dict[int, Attributes] = field(default_factory=dict)
    """Empty ones, too."""
    executions: Executions = field(default_factory=Executions)
    pauses: dict[int, Pause] = field(default_factory=dict)
    """By pipeline."""
    next_run: int = 1
    ticket: int = 0

    def copied(self) -> Tables:
        """As they are now, whatever is written to them from then on."""
        copied = copy.copy(self)
        for name in Tables.__slots__:
            setattr(copied, name, copy.copy(getattr(self, name)))
        copied.places = {partition: copy.copy(one) for partition, one in self.places.items()}
        copied.executions = self.executions.copied()
        return copied
