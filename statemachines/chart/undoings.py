"""Transitions that lead over ``$compensating``: each is taken in two parts.

The first does what the transition does, but for its targets: it leads into ``$compensating`` of a state around all that
it leaves, which is its place. The second leads on from there to the targets, once nothing is left to undo there. Both
are made when they are asked for first, and the same from then on.
"""

from __future__ import annotations

from dataclasses import replace

from statemachines.chart.tree import Arc, Chart


class Undoings:
    """The parts of a chart's transitions."""

    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        self._into: dict[tuple[int, int, int, bool], Arc] = {}
        self._out_of: dict[tuple[int, int], Arc] = {}
        self._lines = {
            arc.line: arc for node in chart.nodes for several in node.arcs.values() for arc in several
        }

    def into(self, arc: Arc, place: int, scope: int) -> Arc:
        """The first part of a transition, with what it undoes; -1: only what is being undone inside of it already.

        Of what is a second part itself, that is what it leads to instead of its targets.
        """
        again = arc.by is not None
        key = arc.line, place, scope, again
        made = self._into.get(key)
        if made is None:
            targets = (self._chart.places[place],)
            made = replace(arc, targets=targets, internal=False, scope=scope, by=arc.by or arc, place=place)
            self._into[key] = made
        return made

    def out_of(self, place: int, line: int) -> Arc:
        """The second part of the transition that is this line of the definition."""
        made = self._out_of.get((place, line))
        if made is None:
            source, by = self._chart.places[place], self._lines[line]
            made = Arc(by.number, source, by.targets, False, None, None, None, by.move, line, -1, by, place)
            self._out_of[place, line] = made
        return made

    def scope_of(self, line: int) -> int:
        """What the transition undoes that is this line of the definition, whatever its action asks for; -1: nothing."""
        return self._lines[line].scope

    def ways_on(self, place: int) -> list[Arc]:
        """All second parts that may lead out of a place, as the chart allows it."""
        return [self.out_of(place, line) for line, arc in self._lines.items() if arc.targets]

    def is_second(self, arc: Arc) -> bool:
        """Whether it is a second part."""
        return arc.by is not None and arc.source == self._chart.places[arc.place]
