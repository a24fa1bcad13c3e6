"""A run is cancelled by an operator: the pipeline's own transition for that, or the end of the run where it is.

It is no event of the order: whatever holds the run and whatever falls due for it, this comes at once.
"""

from __future__ import annotations

from statemachines.chart.agenda import Agenda
from statemachines.chart.macrostep import Macrostep
from statemachines.events import Cancelled
from statemachines.handlers import HandlerError
from statemachines.machine import Machine
from statemachines.memory import read_memory, write_memory
from statemachines.occurrence import Occurrence
from statemachines.outcome import Moved, Reason, Refused
from statemachines.run import Run, Status


def cancel(machine: Machine, run: Run, occurrence: Occurrence) -> Moved | Refused:
    """What becomes of a run that goes on, whether or not it is held; the event says who cancels it, and why.

    The transition is taken like any other, so what an action of it raises refuses the event.
    """
    event, memory = occurrence.event, read_memory(run.memory)
    assert isinstance(event, Cancelled), "nothing else cancels a run"
    try:
        spot = machine.spots.spot_of(run.configuration)
    except KeyError:
        why = f"{machine.name} version {machine.version} has no state {run.configuration!r}"
        return Refused(Reason.DEFINITION_MISSING, why, holds=True)
    macrostep = Macrostep(machine, run, occurrence.envelope, occurrence.key, occurrence.now, spot, memory)
    try:
        moved = macrostep.move(event)
    except HandlerError as error:
        return Refused(error.reason, str(error), holds=True, tried=macrostep.tried, raised=error.raised)
    if moved is not None:
        return _with_all_begun_anew(run, moved)
    steps = {*(one.step for one in memory.owed), *(one.step for one in memory.executions)}
    owed = steps & machine.compensations.keys()
    if owed:
        why = (
            f"{machine.name} does not say where a run goes that is cancelled, and what {', '.join(sorted(owed))} did "
            "would never be undone. Say so by on_cancel(to=..., compensate=True) in its next version"
        )
        return Refused(Reason.UNEXPECTED, why, holds=False)
    agenda = Agenda(memory, occurrence.now, run.sequence + 1, machine.compensations)
    agenda.end(None)
    left = agenda.written(run.memory)
    return Moved(False, run.configuration, int(Status.CANCELLED), None, (), left)


def _with_all_begun_anew(run: Run, moved: Moved) -> Moved:
    """The same with what the run still waits for, and what had failed for good, begun anew.

    What held the run for it is gone with the cancellation: nobody would ever hear of it otherwise.
    """
    memory = read_memory(run.memory if moved.memory is None else moved.memory)
    if not memory.given_up:
        return moved
    executions = tuple(one.anew(one.error) if one.is_given_up else one for one in memory.executions)
    return moved._replace(memory=write_memory(memory._replace(executions=executions)))
