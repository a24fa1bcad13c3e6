"""Why steps wait for their next attempts, as far as the store knows: a breaker, attempts in their limit, its rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from engine.limits import SILENT_SECONDS
from engine.reading.catalog import SQL
from engine.reading.working import WAITING, StepView
from engine.store.connecting import Connection
from statemachines.durations import told_time

Reasons = Mapping[str, str]


async def with_reasons(
    connection: Connection, namespace: str, pipeline: str, run: int, steps: list[StepView]
) -> list[StepView]:
    """The steps of a run as it is now, with why they wait, and why what undoes them does."""
    if not any(WAITING in (one.status, one.compensation and one.compensation.status) for one in steps):
        return steps
    holders = await connection.fetch(SQL["holders_with_breakers"], namespace, SILENT_SECONDS)
    breakers = _breakers([one for row in holders for one in orjson.loads(row["breakers"])], pipeline)
    limits = {
        f"{row['sequence']}.{row['number']}": _limit(row["limited_by"], row["going"], row["next"])
        for row in await connection.fetch(SQL["limited_of_run"], run, SILENT_SECONDS)
    }
    return [_told(one, breakers, limits) for one in steps]


def _told(step: StepView, breakers: Reasons, limits: Reasons) -> StepView:
    if step.status == WAITING and not step.stopping and step.behind is None:
        step = replace(step, waits_for=breakers.get(step.of.name) or limits.get(step.of.execution) or None)
    undone = step.compensation
    if undone is not None and undone.status == WAITING:
        why = breakers.get(undone.name or "") or limits.get(undone.execution or "") or None
        step = replace(step, compensation=replace(undone, waits_for=why))
    return step


def _breakers(said: Iterable[Mapping[str, Any]], pipeline: str) -> Reasons:
    """By step; those of which no engine that is there lets an attempt begin as it comes."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in said:
        for name, step in one["steps"]:
            if name == pipeline:
                found.setdefault(step, []).append(one)
    return {
        step: _breaker(min(several, key=lambda one: str(one["until"])))
        for step, several in found.items()
        if all(one["state"] != "closed" for one in several)
    }


def _breaker(said: Mapping[str, Any]) -> str:
    if said["state"] == "open":
        return f"the breaker {said['name']} is open until {told_time(datetime.fromisoformat(said['until']))}"
    return f"the breaker {said['name']} is half-open, and one attempt is tried"


def _limit(value: str, going: int, following: datetime | None) -> str:
    """Empty: nothing of its limit is taken."""
    whose = f"of {value!r}" if value else "of its step"
    if following is not None:
        return f"the rate of its limit: the next {whose} may begin about {told_time(following)}"
    return f"its limit: {going} {whose} {'goes' if going == 1 else 'go'} on" if going else ""
