"""Which states an action may ask to undo, or not to: those named by what it returned."""

from __future__ import annotations

from typing import Any

from statemachines.chart.tree import Arc, Block, Chart
from statemachines.definition import Pipeline
from statemachines.failing import HandlerError
from statemachines.outcome import Reason
from statemachines.suggest import did_you_mean
from statemachines.wishes import Scope


def scope_asked(chart: Chart, block: Block, arc: Arc | None, scope: Scope) -> int:
    """The state that a transition is to undo by what its action returned. Raises HandlerError."""
    said = f"{block.name} returned {_told('Compensate', scope)}"
    by = None if arc is None else arc.by or arc
    if by is None or not by.targets:
        message = f"{said}, which only the action of a transition may that has a target"
        raise HandlerError(Reason.ACTION_FAILED, message, block.name)
    found = by.source if scope is None else _known(chart, block, said, scope)
    if not (chart.is_within(by.source, found) or chart.is_within(found, by.source)):
        message = (
            f"{said}, which is not for a transition out of {chart.nodes[by.source].name!r}: "
            "it may undo that state, one around it or one inside it"
        )
        raise HandlerError(Reason.ACTION_FAILED, message, block.name)
    before = arc.scope if arc is not None and arc.by is not None else -1
    if before >= 0 and not (chart.is_within(before, found) or chart.is_within(found, before)):
        message = f"{said}, and {chart.nodes[before].name!r} is undone already: name a state around both"
        raise HandlerError(Reason.ACTION_FAILED, message, block.name)
    return _owing(chart, block, said, found)


def scope_settled(chart: Chart, block: Block, arc: Arc | None, scope: Scope) -> int:
    """The state whose compensations are dropped. Raises HandlerError."""
    said = f"{block.name} returned {_told('Settle', scope)}"
    if scope is None and arc is None:
        message = f"{said} without a state, which only the action of a transition may: name one"
        raise HandlerError(Reason.ACTION_FAILED, message, block.name)
    found = _known(chart, block, said, scope) if scope is not None else 0 if arc is None else arc.source
    return _owing(chart, block, said, found)


def _known(chart: Chart, block: Block, said: str, scope: str | Pipeline[Any]) -> int:
    if isinstance(scope, Pipeline):
        if scope.name == chart.name:
            return 0
        message = f"{said}, and the run is of the pipeline {chart.name!r}"
        raise HandlerError(Reason.ACTION_FAILED, message, block.name)
    number = chart.numbers.get(scope)
    if number is None:
        message = f"{said}, and the pipeline has no such state. {did_you_mean(scope, chart.numbers)}"
        raise HandlerError(Reason.ACTION_FAILED, message.rstrip(), block.name)
    return number


def _owing(chart: Chart, block: Block, said: str, number: int) -> int:
    if number in chart.places:
        return number
    what = f"{chart.nodes[number].name!r} runs no step, nor does a state inside it," if number else "no step"
    message = f"{said}, and {what} {'that' if number else 'of the pipeline'} has a compensation"
    raise HandlerError(Reason.ACTION_FAILED, message, block.name)


def _told(effect: str, scope: Scope) -> str:
    told = (
        ""
        if scope is None
        else f"the pipeline {scope.name!r}"
        if isinstance(scope, Pipeline)
        else repr(scope)
    )
    return f"{effect}({told})"
