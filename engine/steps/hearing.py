"""Whether an engine hears of the others: who would be heard, and is not, has lost what he had begun.

Each says in the store every two seconds that it is there. That one is silent means nothing where the store heard
nobody: it stood still, or this engine did, or its clock was set, by which it is told for how long.
"""

from __future__ import annotations

import time
from datetime import datetime

from engine.limits import SILENT_SECONDS

SPEAK_SECONDS = 2.0
"""How often an engine with steps says that it is there, and looks for others that do not any more."""
KEPT_SECONDS = SILENT_SECONDS / 2
"""Where this engine could not say so for so long, others may have been kept from it for as long as counts as silent."""
COUNT_SECONDS = 2 * SPEAK_SECONDS
"""So long behind that whoever has not spoken yet may still be there."""


class Hearing:
    """Of one engine."""

    def __init__(self) -> None:
        self.listens_since = 0.0
        """Since when whoever said that he is there would have been heard."""
        self._heard_at = 0.0
        self._heard: datetime | None = None
        """When the store heard this engine last, by the clocks of both."""
        self._counts_at = 0.0

    def begin(self) -> None:
        """Listen from now on."""
        self.listens_since, self._heard = time.monotonic(), None

    def note(self, said: datetime) -> None:
        """The store has heard this engine, when its clock said this."""
        now = time.monotonic()
        if self._heard is not None:
            passed, passed_there = now - self._heard_at, (said - self._heard).total_seconds()
            if max(passed, abs(passed_there - passed)) > KEPT_SECONDS:
                self.listens_since, self._counts_at = now, now + COUNT_SECONDS
        self._heard_at, self._heard = now, said

    @property
    def unheard_seconds(self) -> float:
        """For how long the store has not heard this engine."""
        return time.monotonic() - self._heard_at

    @property
    def would_hear(self) -> bool:
        """Whether another engine that is there would have been heard lately."""
        return (
            time.monotonic() - self.listens_since >= SILENT_SECONDS and self.unheard_seconds <= KEPT_SECONDS
        )

    @property
    def knows_all(self) -> bool:
        """Whether those that are there have said so, so that all that they have begun counts."""
        return time.monotonic() >= self._counts_at
