"""Which policies had an event begin a run. No row says it: the definition that the row names does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from engine.log import Kind
from engine.reading.catalog import StoredDefinition
from engine.reading.explain.found import FoundRow
from statemachines.patterns import widened
from statemachines.policies import Decided, told, whose


def began_by(row: FoundRow, definition: StoredDefinition | None) -> str:
    """The policies that were asked before an event began a run, in words; empty where none was.

    Where the last run of the key has ended, ``closed`` is asked; and ``no_run``, where no run begins with such events.
    A run that is there since events wait for it begins with row 2 or a later one: of those ``closed`` was asked.
    Where some begin under conditions, and all others do by ``no_run``, no row says whether a condition held.
    """
    if definition is None or row.kind != Kind.STARTED:
        return ""
    try:
        said = orjson.loads(definition.structure)
        asked = ["closed"] if row.generation and row.sequence == 1 else []
        policies = [told(_decided(said["policies"], name, row.type)) for name in asked]
        starts = [start for start in said["starts"] if start["event"] == row.type]
        no_run = _decided(said["policies"], "no_run", row.type)
        if not starts:
            policies.append(told(no_run))
        elif no_run.decision == "start" and all("guard" in start for start in starts):
            policies.append(f"{told(no_run)}, unless a condition of its starts held")
        return ", then ".join(policies)
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""  # a structure that was tampered with is what verify finds


def _decided(policies: Mapping[str, Any], situation: str, event_type: str) -> Decided:
    lines = {
        line["event"]: Decided(line[situation], whose(situation, line["event"]))
        for line in policies.get("lines", ())
        if situation in line
    }
    general = Decided(policies[situation], whose(situation))
    return widened(lines).get(event_type, general)
