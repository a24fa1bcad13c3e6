"""Runs that operators cancel, in the middle of a batch."""

from __future__ import annotations

from typing import Final

from engine.batch.arrival import Arrival
from engine.batch.by_itself import OF_INSIDE, ByItself
from engine.commands.operators import operators_source
from engine.dispositions import Disposition
from engine.log import Kind, digest_number
from statemachines.cancelling import cancel
from statemachines.events import Cancelled
from statemachines.occurrence import Occurrence
from statemachines.outcome import Moved, Reason, Refused
from statemachines.run import Run, Status

CANCEL: Final = Cancelled.event_type()


class Cancelling(ByItself):
    """Cancels them."""

    def can_cancel(self, arrival: Arrival) -> bool:
        """Whether an event cancels its run: an operator's, of a run that goes on by a definition that is loaded."""
        route, envelope = arrival.route, arrival.decoded.envelope
        run = route.cache.get(arrival.key)
        if run is None or arrival.position is not None or envelope.type != CANCEL:
            return False
        by_operator = envelope.source == operators_source(route.newest.namespace)
        return by_operator and run.status == Status.RUNNING and run.definition in route.machines

    def cancel(self, arrival: Arrival) -> None:
        """Have a run be cancelled, whatever holds it; who drains what waited lets follow what it takes by itself.

        Where an action fails, the event is a dead letter, and the run is held by it, or as before.
        """
        route = arrival.route
        run = route.cache[arrival.key]
        at = max(self.commit.at, run.updated)
        outcome = self._cancel(arrival, run)
        if isinstance(outcome, Moved):
            machine = route.machines[run.definition]
            self._row_of_move(arrival, machine, run, Kind.CANCELLED, outcome, at)
            self.count(route, Disposition.APPLIED)
            return
        self._rest_on(arrival, run)
        self.refuse(arrival, run, outcome._replace(holds=outcome.holds and not run.held), at, None)

    def _cancel(self, arrival: Arrival, run: Run) -> Moved | Refused:
        place = OF_INSIDE, digest_number(arrival.digest)
        struck = self._struck(*place) if self.strikes else None
        if struck is not None:
            return Refused(Reason.NEVER_RETURNED, struck, holds=True)
        beat, at = self._beat, max(self.commit.at, run.updated)
        beat[0], beat[1], beat[2] = *place, self._at[1]
        envelope = arrival.decoded.envelope
        attributes = envelope.attributes
        event = Cancelled(who=str(attributes.get("who", "")), why=str(attributes.get("why", "")))
        occurrence = Occurrence(envelope, arrival.key, arrival.digest, at, event)
        return cancel(arrival.route.machines[run.definition], run, occurrence)
