"""Which states and steps are called otherwise in another definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Renames(NamedTuple):
    """What is called otherwise: by the old names, the new ones."""

    states: Mapping[str, str] = {}
    steps: Mapping[str, str] = {}
    """Steps and compensations."""

    def state(self, name: str) -> str:
        """What a state is called now."""
        return self.states.get(name, name)

    def step(self, name: str) -> str:
        """What a step is called now, or a compensation."""
        return self.steps.get(name, name)
