"""How far attempts have come, as they say themselves, on its way to the store."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping

from engine.steps.pulse import Pulse
from engine.store.contract import Store
from engine.store.values import Progress

Said = tuple[int, int, Pulse]
"""The store's number of an execution, the attempt, and its pulse."""


class LastWords:
    """What is to be stored before it is handed out that an attempt failed, so that the next one sees it; and when."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        """How often it is stored how far those have come that go on."""
        self._unsaved: dict[int, Progress] = {}
        self._saved_at = -seconds

    @property
    def waited_for(self) -> Collection[int]:
        """The executions of which they are not stored yet."""
        return self._unsaved.keys()

    def take(self, execution: int, attempt: int, pulse: Pulse) -> bool:
        """An attempt has failed; whether there is something to be stored."""
        note = _note_of(execution, attempt, pulse)
        if note is not None:
            self._unsaved[execution] = note
        return note is not None

    async def store(self, store: Store, holder: int, going: Iterable[Said]) -> bool:
        """Have the store know all of them, and now and then how far those have come that are ``going``.

        What the store passes over has its turn the next time. Returns whether something is waited for no more.
        """
        last: Mapping[int, Progress] = dict(self._unsaved)
        notes, pulses = dict(last), dict[int, Pulse]()
        if time.monotonic() - self._saved_at >= self._seconds:
            for execution, attempt, pulse in going:
                note = _note_of(execution, attempt, pulse)
                if note is not None:
                    notes[execution], pulses[execution] = note, pulse
        if not notes:
            return False
        passed_over = await store.note_progress(holder, [*notes.values()])
        self._saved_at = time.monotonic()
        for execution, pulse in pulses.items():
            if execution not in passed_over:
                pulse.stored = notes[execution].progress
        for execution, note in last.items():
            if self._unsaved.get(execution) is note and execution not in passed_over:
                del self._unsaved[execution]
        return not last.keys() <= self._unsaved.keys()

    def give_up(self) -> None:
        """Wait for none of them any more."""
        self._unsaved.clear()


def _note_of(execution: int, attempt: int, pulse: Pulse) -> Progress | None:
    progress = pulse.progress
    return None if progress is None or progress is pulse.stored else Progress(execution, attempt, progress)
