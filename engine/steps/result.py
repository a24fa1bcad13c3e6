"""What became of an attempt, as the event that its run takes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store.values import BegunExecution

if TYPE_CHECKING:
    from engine.routing import Route

NOBODY: Mapping[str, str] = MappingProxyType({})


class StepResult(NamedTuple):
    """What became of an attempt, as the event that the run takes."""

    begun: BegunExecution
    route: Route
    """As the session has it that takes it."""
    event_id: str
    event_type: str
    data: Mapping[str, Any]
    is_refused: bool = False
    """Whether it stands for a result that the store did not take."""
    said_by: Mapping[str, str] = NOBODY
    """Of what was completed outside: who says so, and why, as attributes of the event."""
    is_late: bool = False
    """Whether it was told before that the attempt was not done, or nobody waited for it any more."""
    is_elsewhere: bool = False
    """Whether another engine has made the attempt, and may still: it is only not heard of."""

    @property
    def key(self) -> str:
        """Of the run."""
        return self.begun.key
