"""Steps whose places are all taken by attempts that do not end: that is said, once, until one of them ends."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from engine.steps.rooms import Place
from statemachines.durations import told_duration
from statemachines.step import Step

log = logging.getLogger("pointsman.engine")

CROWDED_SECONDS = 60.0
"""So long none of them has ended, beside the time that each may take, before that is said."""


@dataclass(slots=True)
class _Full:
    """One of them, as it was found."""

    many: int
    newest: int
    since: float
    is_told: bool = False


class Crowded:
    """Those of one engine."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full: dict[Place, _Full] = {}

    def look(
        self,
        full: Iterable[Place],
        going: Iterable[tuple[Place, int]],
        steps: Mapping[Place, Step[Any, Any]],
        names: Mapping[int, str],
    ) -> None:
        """Look once more, at those that are ``full``; ``going`` are all attempts, by their numbers.

        ``names`` are those of pipelines. A number that begins later is higher.
        """
        now, wanted = self._clock(), set(full)
        many: Counter[Place] = Counter()
        newest: dict[Place, int] = {}
        for place, number in going if wanted else ():
            if place in wanted:
                many[place] += 1
                newest[place] = max(number, newest.get(place, 0))
        before, self._full = self._full, {}
        for place in wanted & newest.keys():
            known = before.get(place)
            if known is None or (known.many, known.newest) != (many[place], newest[place]):
                known = _Full(many[place], newest[place], now)
            self._full[place] = known
            limit = steps[place].timeout
            patience = CROWDED_SECONDS + (0.0 if limit is None else limit.total_seconds())
            if not known.is_told and now - known.since >= patience:
                known.is_told = True
                _tell(names[place[0]], steps[place], known.many, patience)


def _tell(pipeline: str, step: Step[Any, Any], many: int, seconds: float) -> None:
    log.warning(
        "all places that the step %s of the pipeline %s may have in this engine (%s) have been taken for %s, and none "
        "of its attempts has ended, so its other runs wait; %s",
        step.name,
        pipeline,
        many,
        told_duration(timedelta(seconds=seconds)),
        "attempts that hang end by a timeout= of the step"
        if step.timeout is None
        else "they go on though their time is over, so only a restart of the engine ends them",
    )
