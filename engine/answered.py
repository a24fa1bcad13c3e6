"""What the client answers, and the errors by which it says that what was asked was not done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.dispositions import Disposition
from engine.errors import PointsmanError
from engine.reading import Done, RunView


class WaitedTooLongError(PointsmanError, TimeoutError):
    """What was waited for did not come in time."""


class MissedError(PointsmanError):
    """What is waited for will not come any more: the run has ended elsewhere."""


class NotTakenError(PointsmanError, TimeoutError):
    """No engine has taken up in time what was asked. It waits for one, and is done then."""

    def __init__(self, done: Done) -> None:
        event_id = done.asked.event_id
        again = f" To hear what becomes of it, ask again by its id, {event_id!r}." if event_id else ""
        super().__init__(f"{done.sentence}{again}")
        self.event_id = event_id
        """Of the event that was sent: asked again under it, it is done once, and what became of it is answered."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of what was asked of a run, and the run as it is by then."""

    done: Done
    run: RunView | None
    """It may have gone on since. None: there is none."""

    @property
    def failed(self) -> bool:
        """Whether it was taken up and could not be done; an event: whether it is a dead letter. Then it is that of an
        error (``NotDoneError.answered``).
        """
        return self.done.failed

    @property
    def disposition(self) -> str | None:
        """What became of an event, as in ``applied``."""
        return self.done.disposition

    @property
    def sentence(self) -> str:
        """The same in words."""
        return self.done.sentence

    @property
    def generation(self) -> int | None:
        """The run's, where a row of its log tells what became of an event."""
        return self.done.generation

    @property
    def sequence(self) -> int | None:
        """That row; None: it left none, as a duplicate."""
        return self.done.sequence

    @property
    def configuration(self) -> list[str]:
        """The run's active states after that row, outermost first; those that it has by now where there is none."""
        if self.sequence is not None:
            return [*self.done.configuration]
        return [] if self.run is None else self.run.configuration

    def as_json(self) -> dict[str, Any]:
        """The documented fields of what was done, and those of the run."""
        run = None if self.run is None else self.run.as_json()
        return {**self.done.as_json(), "run": run}


class NotDoneError(PointsmanError):
    """An engine took up what was asked, and it could not be done; of an event: it is a dead letter."""

    def __init__(self, answered: Answered, so: str = "") -> None:
        super().__init__(f"{so}{answered.sentence}")
        self.answered = answered
        """What became of it all the same, and where the run is."""


class StillWaitsError(NotDoneError):
    """A step was not completed, and still waits: what it was to be completed with is no result of it, for one."""


class TooLateError(NotDoneError):
    """A step is not waited for any more: it was completed before, or its state was left, or its run has ended."""


class InvalidDataError(NotDoneError):
    """The data of an event that was sent is not valid; the sentence names the fields, and the run is as it was."""


class AlreadyRunningError(NotDoneError):
    """A run was not begun, since its key has one that goes on (``answered.run``). Nothing is left of what was asked."""


def check_done(answered: Answered, so: str = "") -> Answered:
    """The answer, where what was asked is done; ``so`` is said before why it is not.

    Raises:
        NotTakenError: no engine has taken it up.
        NotDoneError: one has, and could not do it; the class of it says of what kind that is.
    """
    done = answered.done
    if not done.taken:
        raise NotTakenError(done)
    if not done.failed:
        return answered
    if done.asked.token is None:
        raise _kind_of(done)(answered, so)
    if done.event_id is None:
        raise StillWaitsError(answered)
    raise TooLateError(answered) if done.disposition == Disposition.VOID.word else NotDoneError(answered)


def _kind_of(done: Done) -> type[NotDoneError]:
    if done.is_invalid:
        return InvalidDataError
    # Whatever else is sent is an event, and has become something, or was dropped.
    became_something = done.disposition is not None or done.reason is not None
    return AlreadyRunningError if done.asked.event_id and not became_something else NotDoneError
