"""What is seen while the demo runs: what the engine has committed, as it commits it."""

from __future__ import annotations

from collections import Counter, deque
from datetime import datetime
from typing import Any, NamedTuple

from rich.console import Group
from rich.text import Text

from engine.batch import Batch
from engine.dispositions import Disposition
from engine.log import CONSUMED, Kind, LogRow, unpack
from engine.observing import Silent
from statemachines.definition import Pipeline

RECENT_MAX = 9
BAR_WIDTH = 80
BLOCK = "█"
"""One run."""
COLOURS = ("yellow", "cyan", "blue", "magenta", "green", "red")
STARTED_WORD = "(new)"


class Line(NamedTuple):
    """Something that happened, in a line."""

    at: datetime
    key: str
    what: str
    style: str
    notable: bool
    """Worth a line where not every move is shown."""


class Watch(Silent):
    """Takes notice of every commit."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self.colours = {
            state.name: COLOURS[number % len(COLOURS)] for number, state in enumerate(pipeline.states)
        }
        self.dispositions: Counter[Disposition] = Counter()
        self.recent: deque[Line] = deque(maxlen=RECENT_MAX)
        self.notable: list[Line] = []
        self._keys: dict[int, str] = {}
        self._states: dict[int, str] = {}
        self._held: set[int] = set()

    @property
    def records(self) -> int:
        """Records that have a disposition."""
        return sum(self.dispositions.values())

    @property
    def moves(self) -> int:
        """Rows that consumed an event."""
        return self.dispositions[Disposition.STARTED] + self.dispositions[Disposition.APPLIED]

    def in_state(self) -> dict[str, int]:
        """How many runs are in each state."""
        counts = Counter(self._states.values())
        return {state: counts[state] for state in self.colours}

    def committed(self, batch: Batch, seconds: float) -> None:
        """See Observer."""
        del seconds
        commit = batch.commit
        for _, run in (*commit.created, *commit.changed):
            self._keys[run.id] = run.key
        for packed in commit.rows:
            self._row(unpack(packed))
        for letter in commit.dead_letters:
            self.dispositions[Disposition.DEAD_LETTERED] += 1
            self._tell(
                commit.at, letter.key or "?", f"dead letter: {letter.reason}, {_short(letter.error)}", "red"
            )
        for noted in commit.noted:
            self.dispositions[Disposition(noted.disposition)] += 1
            self._tell(commit.at, noted.key or "?", f"{noted.event_id} came again: {noted.reason}", "dim")

    def _row(self, row: LogRow) -> None:
        before = self._states.get(row.run, STARTED_WORD)
        key = self._keys.get(row.run, "?")
        self._states[row.run] = row.configuration
        kind = Kind(row.kind)
        if kind in CONSUMED:
            disposition = Disposition.STARTED if kind is Kind.STARTED else Disposition.APPLIED
            self.dispositions[disposition] += 1
            stays = row.configuration == before
            move = f"stays {before}" if stays else f"{before} → {row.configuration}"
            self._tell(row.at, key, move, self.colours.get(row.configuration, ""), notable=False)
        elif kind is Kind.WAITED:
            self.dispositions[Disposition.HELD] += 1
            self._tell(row.at, key, f"{row.type} waits, the run is held", "yellow")

    def _tell(self, at: datetime, key: str, what: str, style: str, *, notable: bool = True) -> None:
        line = Line(at, key, what, style, notable)
        self.recent.append(line)
        if notable:
            self.notable.append(line)

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
            (str(counts[Disposition.DUPLICATE]), "duplicates left out", "bold"),
            (str(counts[Disposition.DEAD_LETTERED]), "dead letters", "bold red"),
            (str(counts[Disposition.HELD]), "held", "bold yellow"),
        ):
            text.append(f"  {number}", style).append(f" {word}")
        return text

    def _bars(self) -> list[Text]:
        return [
            Text.assemble(
                f"  {state:<10}", (BLOCK * min(BAR_WIDTH, count), self.colours[state]), f" {count or ''}"
            )
            for state, count in self.in_state().items()
        ]

    def _recent(self) -> list[Text]:
        lines = [
            Text.assemble(
                (f"  {line.at.astimezone():%H:%M:%S.}{line.at.microsecond // 1000:03}  ", "dim"),
                f"{line.key:<8}",
                (line.what, line.style),
                no_wrap=True,
                overflow="ellipsis",
            )
            for line in self.recent
        ]
        return lines + [Text() for _ in range(RECENT_MAX - len(lines))]


def _short(text: str) -> str:
    return " ".join(text.split())
