"""What is seen while the demo runs: what the engine has committed, as the store has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich.console import Group
from rich.text import Text

from engine.demo import story
from engine.dispositions import Disposition
from engine.log import Kind
from engine.store.connecting import Connection
from engine.store.queries import load
from statemachines.chart.tree import COMPENSATING
from statemachines.definition import Pipeline

SQL = load("demo")
RECENT_MAX = 9
BAR_WIDTH = 80
BLOCK = "█"
"""One run."""
COLOURS = (
    "yellow",
    "cyan",
    "blue",
    "magenta",
    "green",
    "bright_black",
    "red",
    "bright_red",
    "bright_magenta",
)
STARTED_WORD = "(new)"
_DISPOSITIONS = {
    Kind.STARTED: Disposition.STARTED,
    Kind.MOVED: Disposition.APPLIED,
    Kind.WAITED: Disposition.HELD,
    Kind.DEFERRED: Disposition.DEFERRED,
}


class Line(NamedTuple):
    """Something that happened, in a line."""

    at: datetime
    key: str
    what: str
    style: str
    notable: bool
    """Worth a line where not every move is shown."""


class Watch:
    """Looks at the store again and again, and keeps what it has seen last."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        names = [state.name for state in pipeline.states]
        self.colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
        self.colours[COMPENSATING] = "bright_yellow"
        self.dispositions: Counter[Disposition] = Counter()
        self.states: dict[str, str] = {}
        """By order."""
        self.lines: list[Line] = []
        self.taken = 0
        """How many partitions of the topic somebody reads."""
        self.applied = 0
        """How many records are done with."""
        self.going = 0
        """How many attempts are to come, or go on."""
        self.moves = 0
        """Rows that moved a run, or began one."""
        self._told: list[Line] = []
        """What happened to the engine itself."""
        self.lost: dict[str, datetime] = {}
        """By order, when an attempt of it was lost first."""

    def in_state(self) -> dict[str, int]:
        """How many runs are in each state."""
        counts = Counter(self.states.values())
        return {state: counts[state] for state in self.colours}

    @property
    def notable(self) -> list[Line]:
        """In their order."""
        return [line for line in self.lines if line.notable]

    def is_in(self, order: str, state: str) -> bool:
        """Whether an order is in a state."""
        return self.states.get(order) == state

    def tell(self, at: datetime, key: str, what: str, style: str) -> None:
        """Take down what the store does not know."""
        self._told.append(Line(at, key, what, style, notable=True))

    async def look(self, connection: Connection) -> None:
        """See how things stand now."""
        progress = await connection.fetchrow(SQL["progress"], story.NAMESPACE, story.TOPIC)
        assert progress is not None
        self.taken, self.applied, self.going = progress["taken"], progress["applied"], progress["going"]
        rows = await connection.fetch(SQL["rows_so_far"], story.NAMESPACE)
        letters = await connection.fetch(SQL["letters_so_far"], story.NAMESPACE)
        noted = await connection.fetch(SQL["noted_so_far"], story.NAMESPACE)
        self.dispositions.clear()
        lines = [*self._told, *self._rows(rows), *self._letters(letters), *self._noted(noted)]
        self.lines = sorted(lines, key=lambda line: line.at)

    def _rows(self, rows: Iterable[Any]) -> Iterable[Line]:
        self.moves = 0
        self.states.clear()
        for row in rows:
            before = self.states.get(row["key"], STARTED_WORD)
            after = self.states[row["key"]] = row["configuration"].partition("  ")[0] or before
            kind = Kind(row["kind"])
            if row["consumed"] and kind in _DISPOSITIONS:
                self.dispositions[_DISPOSITIONS[kind]] += 1
            self.moves += after != before
            yield self._line(row, kind, before, after)

    def _line(self, row: Any, kind: Kind, before: str, after: str) -> Line:
        event, colour = row["type"], self.colours.get(after, "")
        at, key = row["at"], row["key"]
        if after != before:
            undone = before == COMPENSATING
            return Line(at, key, f"{before} → {after}{': all is undone' * undone}", colour, notable=undone)
        match kind:
            case Kind.WAITED:
                return Line(at, key, f"{event} waits, the run is held", "yellow", notable=True)
            case Kind.DEFERRED:
                return Line(at, key, f"{event} comes early, and waits", "yellow", notable=True)
        if event.startswith("done.step."):
            return Line(at, key, f"{event.removeprefix('done.step.')} is done", colour, notable=True)
        if event.startswith("tried.step."):
            step = event.removeprefix("tried.step.")
            self.lost.setdefault(key, at)
            return Line(at, key, f"an attempt of {step} was lost: it is tried again", "yellow", notable=True)
        return Line(at, key, f"stays {after}", colour, notable=False)

    def _letters(self, letters: Iterable[Any]) -> Iterable[Line]:
        for one in letters:
            self.dispositions[Disposition.DEAD_LETTERED] += 1
            what = f"dead letter: {one['reason']}, {' '.join(one['error'].split())}"
            yield Line(one["at"], one["key"] or "?", what, "red", notable=True)

    def _noted(self, noted: Iterable[Any]) -> Iterable[Line]:
        for one in noted:
            if one["consumed"]:
                self.dispositions[Disposition(one["disposition"])] += 1
                what = f"{one['event_id']} came again: {one['reason']}"
                yield Line(one["at"], one["key"] or "?", what, "dim", notable=True)

    def render(self, published: int, total: int) -> Group:
        """What a terminal shows."""
        return Group(self.counters(published, total), Text(), *self._bars(), Text(), *self._recent())

    def counters(self, published: int, total: int) -> Text:
        """One line of numbers."""
        counts = self.dispositions
        text = Text()
        for number, word, style in (
            (f"{published}/{total}", "published", "bold"),
            (str(self.moves), "moves", "bold green"),
            (str(self.going), "steps to do", "bold"),
            (str(counts[Disposition.DUPLICATE]), "duplicates left out", "bold"),
            (str(counts[Disposition.DEAD_LETTERED]), "dead letters", "bold red"),
            (str(counts[Disposition.HELD]), "held", "bold yellow"),
        ):
            text.append(f"  {number}", style).append(f" {word}")
        return text

    def _bars(self) -> list[Text]:
        return [
            Text.assemble(
                f"  {state:<13}", (BLOCK * min(BAR_WIDTH, count), self.colours[state]), f" {count or ''}"
            )
            for state, count in self.in_state().items()
        ]

    def _recent(self) -> list[Text]:
        recent = self.lines[-RECENT_MAX:]
        lines = [
            Text.assemble(
                (f"  {line.at.astimezone(UTC):%H:%M:%S.}{line.at.microsecond // 1000:03}Z  ", "dim"),
                f"{line.key:<8}",
                (line.what, line.style),
                no_wrap=True,
                overflow="ellipsis",
            )
            for line in recent
        ]
        return lines + [Text() for _ in range(RECENT_MAX - len(lines))]
