"""Pipelines that are paused, in the middle of a batch: each run for which something comes is held, and it waits there.

What would begin a run waits for it like a deferred event, and the run that is expected by that is held, too. So what
comes is kept in its order by run, and in the tables; and once the pipeline is resumed, the holds are lifted one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import orjson

from engine.batch.arrival import Arrival
from engine.commands.cancelling import Cancelling
from engine.log import PIPELINE_PAUSED, Kind, microseconds
from engine.routing import Route
from engine.store.values import Pause
from statemachines.outcome import Deferred, Reason
from statemachines.run import Run, Status, has_seen

BEGINS_WITHIN: Final = timedelta(days=30)
"""So long an event that begins a run waits for it once its pipeline goes on, should nothing take it then."""
WHY: Final = "its pipeline is paused"
NOTHING_PAUSED: Final[Mapping[int, Pause]] = {}


class Pausing(Cancelling):
    """Holds their runs."""

    paused: Mapping[int, Pause] = NOTHING_PAUSED
    """By pipeline."""

    def hold_back(self, arrival: Arrival) -> bool:
        """Hold the run that an event of a paused pipeline is for; whether the event waits by that already.

        Where it does not, it meets its run as always: one that is held, or one that it does nothing to.
        """
        route, key = arrival.route, arrival.key
        run, pause = route.cache.get(key), self.paused[route.pipeline]
        if run is not None and (run.held or has_seen(run.recent, arrival.digest)):
            return False
        if run is None or run.has_ended:
            if not _may_begin(arrival, run):
                return False
            self.defer_begin(arrival, self.commit.at if run is None else max(self.commit.at, run.updated))
            self._hold_for(route, route.cache[key], pause)
            return True
        if run.status == Status.EXPECTED or run.definition in route.machines:
            self._hold_for(route, run, pause)
        return False

    def defer_begin(self, arrival: Arrival, at: datetime) -> None:
        """Have an event that begins a run wait for that."""
        run = arrival.route.cache.get(arrival.key)
        until = at + BEGINS_WITHIN
        deferred = Deferred(Reason.PAUSED, WHY, until, "dead_letter")
        self.settle(arrival, run, deferred, at, None)

    def _hold_for(self, route: Route, run: Run, pause: Pause) -> None:
        said = orjson.dumps({"command": "pause_pipeline", "who": pause.who, "why": pause.why})
        milliseconds = microseconds(pause.at) // 1_000
        known_as = f"command/{pause.command}"
        self.command_row(route, run, PIPELINE_PAUSED, known_as, said, milliseconds, Kind.PAUSED)
        self.commit.under_pauses.add(pause.command)


def _may_begin(arrival: Arrival, run: Run | None) -> bool:
    """Whether an event could begin a run, or the next one of its key."""
    machine, event_type = arrival.route.newest, arrival.decoded.envelope.type
    if arrival.delayed is not None:
        return False
    if run is not None and machine.policies.of("closed", event_type).decision != "restart":
        return False
    return event_type in machine.beginnings or machine.policies.of("no_run", event_type).decision == "start"
