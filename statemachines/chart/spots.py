"""Where a run is, as its row and the log have it: text.

The active states in document order, separated by spaces; behind a state that is undone stands ``$compensating``, and
alone where the run is. Where the chart has histories with something to remember, two
spaces follow, and for each of them its name, how many states it remembers, and their names. Names have no spaces.
"""

from __future__ import annotations

from collections.abc import Iterable

from statemachines.chart.entering import History
from statemachines.chart.microsteps import PLANS_MAX, Spot
from statemachines.chart.tree import COMPENSATING, Chart
from statemachines.run import BETWEEN
from statemachines.suggest import did_you_mean


class Spots:
    """From text and back, for one chart; what was translated is kept."""

    def __init__(self, chart: Chart) -> None:
        self._chart = chart
        self._texts: dict[Spot, str] = {}
        self._spots: dict[str, Spot] = {}

    def text_of(self, spot: Spot) -> str:
        """The text of a spot."""
        text = self._texts.get(spot)
        if text is None:
            if len(self._texts) >= PLANS_MAX:
                self._texts.clear()
            text = self._texts[spot] = self._write(spot)
        return text

    def spot_of(self, text: str) -> Spot:
        """The spot of a text. Raises KeyError for a state that the chart does not have."""
        spot = self._spots.get(text)
        if spot is None:
            if len(self._spots) >= PLANS_MAX:
                self._spots.clear()
            spot = self._spots[text] = self._read(text)
        return spot

    def _write(self, spot: Spot) -> str:
        chart = self._chart
        remembered: list[str] = []
        for number, states in zip(chart.history, spot.history, strict=True):
            if states:
                names = chart.names(states)
                remembered += [chart.nodes[number].name, str(len(names)), *names]
        text = " ".join(chart.names(spot.active & ~1))
        return text + BETWEEN + " ".join(remembered) if remembered else text

    def _read(self, text: str) -> Spot:
        chart = self._chart
        active, _, remembered = text.partition(BETWEEN)
        history = dict.fromkeys(chart.history, 0)
        words = iter(remembered.split(" ") if remembered else ())
        for name in words:
            number, count = chart.numbers[name], int(next(words))
            history[number] = chart.bits([next(words) for _ in range(count)])
        values: History = tuple(history.values())
        return Spot(1 | self._active_in(active.split(" ")), values)

    def _active_in(self, names: list[str]) -> int:
        """The set of active states. ``$compensating`` is that of the one before it, of which no other one is."""
        chart, found, before = self._chart, 0, 0
        for name in names:
            before = chart.places[before] if name == COMPENSATING else chart.numbers[name]
            found |= 1 << before
        return found


def place_name(scope: str) -> str:
    """What ``$compensating`` of a state is called where it is told from others; of the empty name, that of the run."""
    return f"{scope} {COMPENSATING}" if scope else COMPENSATING


def told_apart(states: Iterable[str]) -> list[str]:
    """The active states, outermost first, with ``$compensating`` of each under a name of its own."""
    found: list[str] = []
    before = ""
    for state in states:
        found.append(place_name(before) if state == COMPENSATING else state)
        before = state
    return found


class Live:
    """Which states are active just now, while a macrostep goes on."""

    __slots__ = ("_chart", "active")

    def __init__(self, chart: Chart, active: int) -> None:
        self._chart = chart
        self.active = active

    def is_active(self, state: str) -> bool:
        """Whether it is. Raises LookupError for a state that there is not."""
        if state == COMPENSATING and self._chart.compensating:
            return bool(self.active & self._chart.compensating)
        number = self._chart.numbers.get(state)
        if number is None:
            message = f"the pipeline has no state {state!r}. {did_you_mean(state, self._chart.numbers)}"
            raise LookupError(message)
        return bool(self.active >> number & 1)

    def has_tag(self, tag: str) -> bool:
        """Whether an active state has it. Raises LookupError for a tag that no state has."""
        states = self._chart.tags.get(tag)
        if states is None:
            message = f"no state of the pipeline has the tag {tag!r}. {did_you_mean(tag, self._chart.tags)}"
            raise LookupError(message)
        return bool(self.active & states)
