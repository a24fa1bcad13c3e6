"""What validation says of charts that others wrote is so: what it says never happens does not happen in their tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from statemachines import Event
from statemachines.mistakes import Mistake
from statemachines.places import Place
from statemachines.validation import find_mistakes
from tests.scxml.content import Model
from tests.scxml.scxml_file import Translated
from tests.scxml.suite import LEFT_OUT, NAMES, live, path_of

DESCRIPTION = Path(__file__).parents[2] / "statemachines" / "README.md"
HELD = [name for name in NAMES if name not in LEFT_OUT]


@dataclass(slots=True)
class Noting:
    """Makes pipelines of charts that note the states that are entered, and the transitions that are taken."""

    entered: set[str] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)
    """Their numbers, which are the lines of their places."""

    def make(self, path: Path) -> Translated:
        translated = Translated(path)
        for state in translated.flow.states:
            if state.kind != "history":
                state.entries.insert(0, (self._note(self.entered, state.name), state.place))
        for number, move in enumerate(translated.flow.moves):
            action = self._note(self.taken, number, move.action)
            translated.flow.moves[number] = replace(move, action=action, place=Place(str(path), number))
        return translated

    def _note(self, noted: set[Any], one: Any, action: Any = None) -> Any:
        def act(model: Model, event: Event) -> Any:
            noted.add(one)
            return action(model, event) if action else None

        return act


@cache
def mistakes_of(name: str) -> list[Mistake]:
    return find_mistakes(Noting().make(path_of(name)).flow)


@pytest.mark.parametrize("name", HELD)
def test_what_never_happens_does_not_happen(name: str) -> None:
    unreached, idle = set(), set()
    for mistake in mistakes_of(name):
        # All these charts come to rest.
        assert "in a circle" not in mistake.message
        if mistake.message.startswith("no run ever reaches the state"):
            unreached.add(mistake.state)
        elif "never fires" in mistake.message:
            idle.add(mistake.place.line)
    if unreached or idle:
        noting = Noting()
        live(name, make=noting.make)
        assert not unreached & noting.entered
        assert not idle & noting.taken


def test_validation_has_something_to_say_of_these_charts() -> None:
    kinds = (
        "no run ever reaches the state",
        "never fires",
        "in another region",
        "leaves and enters all regions",
    )
    said = Counter(
        kind for name in HELD for mistake in mistakes_of(name) for kind in kinds if kind in mistake.message
    )
    assert set(said) == set(kinds)
    assert said["never fires"] > 40


def test_the_description_says_how_many_charts_have_mistakes() -> None:
    said = " ".join(DESCRIPTION.read_text("utf-8").split())
    mistaken = [name for name in HELD if any(mistake.severity == "error" for mistake in mistakes_of(name))]
    assert f"{len(mistaken)} of the charts would be refused by validation" in said
