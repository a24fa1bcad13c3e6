"""What a run has asked for that is not for itself leaves: an event for another run, or one that is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from statemachines.effects import Asked, Publication
from statemachines.outcome import Moved

if TYPE_CHECKING:
    from statemachines.memory import Delayed
    from statemachines.run import Run


def departed(run: Run, delayed: Delayed, memory: bytes) -> Moved:
    """It leaves; the run stays as it is, but for what it remembers."""
    data = orjson.dumps(delayed.data)
    publications: tuple[Publication, ...] = ()
    asked: tuple[Asked, ...] = ()
    if delayed.topic:
        publications = (Publication(delayed.topic, delayed.type, delayed.key, data),)
    else:
        asked = (Asked("send", delayed.type, data, "", delayed.pipeline, delayed.key),)
    return Moved(False, run.configuration, run.status, None, publications, memory, asked)
