"""Events that say how a state or a step ended: it is done, or a step has failed."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Generic, cast

from pydantic import Field, PlainValidator, create_model
from typing_extensions import TypeVar

from statemachines import events
from statemachines.events import DONE_PREFIX, STEP_DONE, STEP_FAILED, StepFailed

R = TypeVar("R", default=Any)


class Done(events.Done, Generic[R]):
    """Says that a state or a step is done; ``State.done`` and ``Step.done`` are the classes of such events of one."""

    data: R = cast("R", None)
    """What the final state's ``output``, or the step, returned."""

    @property
    def result(self) -> R:
        """The same, as one says of a step."""
        return self.data

    if not TYPE_CHECKING:

        def __class_getitem__(cls, result: Any) -> type[Done]:
            """``Done[Charge]`` is for type checkers; what is checked when an event comes is what its step says."""
            del result
            return cls


def make_done(state: str) -> type[Done]:
    """The class of the events that say that a state is done."""
    body = {"__module__": __name__, "__qualname__": "Done"}
    made = types.new_class(
        "Done", (Done,), {"type": f"{DONE_PREFIX}{state}"}, lambda space: space.update(body)
    )
    return cast("type[Done]", made)


def make_step_done(step: str, validate: Callable[[Any], Any]) -> type[Done]:
    """The class of the events that say that a step is done; its result is as ``validate`` returns it."""
    field: Any = (Annotated[Any, PlainValidator(validate)], Field(default=None, validate_default=True))
    made = create_model(
        "Done", __base__=Done, __module__=__name__, __cls_kwargs__={"type": f"{STEP_DONE}{step}"}, data=field
    )
    return cast("type[Done]", made)


def make_step_failed(step: str) -> type[StepFailed]:
    """The class of the events that say that a step has failed, for whatever reason."""
    return StepFailed.named(f"{STEP_FAILED}{step}.*")
