"""How steps ended, as the events that tell their runs; and what who does them is to know.

The engine does the steps, and puts what comes of them into the inbox of the run. All that makes such an event, and that
must be the same after any number of crashes, is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import from_json

from statemachines.context import Context
from statemachines.events import (
    STEP_DONE,
    STEP_FAILED,
    STEP_STOPPED,
    STEP_TRIED,
    STEP_WAITS,
    Address,
    kept_id,
)
from statemachines.failing import check_exact, describe_invalid, on_one_line, printable
from statemachines.later import Later, mistake_in
from statemachines.memory import Execution, microseconds_of
from statemachines.step import TIMED_OUT, Step, error_name
from statemachines.undoing import ENDED

if TYPE_CHECKING:
    from statemachines.machine import Machine

C = TypeVar("C", bound=Context)
FROZEN_KEPT_MAX = 1_000
"""How many classes of contexts are kept as those that cannot be changed."""
RESULT_BYTES_MAX = 1_000_000
"""How large a step's result may be as JSON: it is written to the log."""
_new = tuple.__new__


class ResultError(ValueError):
    """What a step returned is not what it says that it returns, or does not survive being stored."""


def done_event(
    step: Step[Any, Any], execution: Execution, attempt: int, data: Any
) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that says that a step is done; ``data`` is what it returned.

    Raises:
        ResultError: it is not what the step's annotation says, or does not come back as that once it was stored.
    """
    said = {"execution": execution.id, "attempt": attempt, "data": stored(step, data)}
    return f"{STEP_DONE}{step.name}", said


def waits_event(
    step: Step[Any, Any], execution: Execution, later: Later, now: datetime
) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that says that an attempt goes on outside, and what it is completed by.

    Raises:
        ResultError: it cannot be waited for.
    """
    mistake = mistake_in(later)
    if mistake:
        raise ResultError(printable(f"{step.name} {mistake}"))
    until = 0 if later.within is None else microseconds_of(now + later.within)
    said = {"execution": execution.id, "attempt": execution.attempt, "token": later.token, "until": until}
    return f"{STEP_WAITS}{step.name}", said


def stopped_event(
    step: Step[Any, Any], execution: Execution, how: str, data: Any = None
) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that says what became of a step with a compensation once its state was left.

    ``how`` is one of ``statemachines.undoing.HOWS``: ``never`` where the attempt was not begun, ``ended`` where it was
    done all the same, ``failed`` where it raised, ``unknown`` where nobody knows. ``data`` is what it returned: where
    that is ``Later``, the event tells its token, so that who completes it hears that nobody waits.

    Raises:
        ResultError: as of ``done_event``.
    """
    said = {"execution": execution.id, "attempt": execution.attempt, "how": how}
    if how == ENDED:
        said["data"] = stored(step, data)
    elif isinstance(data, Later) and not mistake_in(data):
        said["token"] = data.token
    return f"{STEP_STOPPED}{step.name}", said


def stored(step: Step[Any, Any], data: Any) -> Any:
    """What a step returned, as the log has it. Raises ResultError."""
    try:
        adapter = step.adapter
        # What the adapter's own methods say, which take their time for what is not asked for here.
        written = adapter.serializer.to_json(data, by_alias=True, warnings="error")
        check_exact(written, "what it returned")
        _check_size(step.name, len(written))
        result = from_json(written, allow_inf_nan=False)
        back = step.read_result(result)
        if type(back) is not type(data):
            _check_kind(step.name, data, back)
    except ResultError:
        raise
    except BaseException as error:  # noqa: BLE001 - serializers and annotations are user code
        why = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{step.name} returned {type(data).__name__}, which does not survive being stored: {why}"
        raise ResultError(printable(message)) from None
    return result


def failed_event(
    step: Step[Any, Any],
    execution: Execution,
    error: BaseException | str,
    *,
    timed_out: bool = False,
    lost: bool = False,
    raised: bool = False,
    attempts: int,
    progress: bytes | None = None,
) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that says that a step has failed for good, after so many attempts.

    ``lost``: nobody knows what the last of them did. ``raised``: it has no time left, but the last attempt was not cut
    short: it raised. ``progress``: how far it had come, as JSON, for who begins it anew. The type names the most
    specific of the exceptions that ``failed_with`` was asked for, if it is any of them.
    """
    end = f".{TIMED_OUT}" if timed_out else _declared(step, error)
    said: dict[str, Any] = {"execution": execution.id, "attempt": execution.attempt}
    said |= _told(error, timed_out=timed_out) | _unseen(lost=lost) | ({"raised": True} if raised else {})
    if progress is not None:
        said["progress"] = progress.decode()
    return f"{STEP_FAILED}{step.name}{end}", {**said, "attempts": attempts}


def tried_event(
    step: Step[Any, Any],
    execution: Execution,
    error: BaseException | str,
    *,
    timed_out: bool = False,
    lost: bool = False,
    stopped: bool = False,
    again: int,
) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that says that an attempt failed, and when the next one may begin.

    ``lost``: nobody knows what it did; so it is where it timed out, which is said where it matters. ``stopped``: its
    engine was, in order, and the attempt does not count. ``again`` is in microseconds since 1970.
    """
    unseen = lost or (timed_out and step.compensation is not None)
    said: dict[str, Any] = {"execution": execution.id, "attempt": execution.attempt}
    said |= _told(error, timed_out=timed_out) | _unseen(lost=unseen) | ({"stopped": True} if stopped else {})
    return f"{STEP_TRIED}{step.name}", {**said, "again": again}


def resolved_event(
    step: Step[Any, Any], execution: Execution, result: bytes, by: str
) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that says that a step counts as done, with this result in JSON, as an operator says.

    Raises:
        ResultError: as of ``done_event``.
    """
    try:
        data = step.adapter.validate_json(result)
    except BaseException as error:  # noqa: BLE001 - validators are user code
        raise ResultError(f"{step.name} does not return that: {describe_invalid(error)}") from None
    event_type, said = done_event(step, execution, execution.attempt, data)
    return event_type, {**said, "by": by}


def decided_event(
    begins: str, execution: Execution, by: str, said: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Type and data of the event that says what an operator has decided of a step that has failed for good.

    ``begins`` is how its type does: ``STEP_RETRIED`` or ``STEP_SKIPPED``; ``said`` is what its failure said.
    """
    told = {"execution": execution.id, "attempt": execution.attempt, "by": by}
    return f"{begins}{execution.step}", told | {
        name: said[name] for name in ("error", "message") if name in said
    }


class Addressed(Protocol):
    """A run, or what names one."""

    @property
    def key(self) -> str: ...
    @property
    def generation(self) -> int: ...


def event_id(machine: Machine, run: Addressed, execution: Execution, attempt: int, kind: str) -> str:
    """The id of the event that says how an attempt ended: the same whoever says so, and after any number of crashes.

    ``kind`` is ``done``, ``failed``, ``tried``, ``stopped`` or ``waits``, or what an operator decides: ``retried``,
    ``skipped`` or ``resolved``. An attempt has never both failed and been tried; but where two engines made it, it may
    be done as well, or stopped.
    """
    made = idempotency_key(machine, run.key, run.generation, execution)
    return f"{made}/{attempt}" if kind in ("failed", "tried") else f"{made}/{attempt}/{kind}"


def idempotency_key(machine: Machine, key: str, generation: int, execution: Execution) -> str:
    """What all attempts at one execution are known by, and nothing else; the id of the effect that asked for it."""
    address = _new(Address, (machine.namespace, machine.name, key, generation, execution.sequence))
    return kept_id(address, execution.number)


def read_frozen(context_class: type[C], written: bytes) -> C:
    """A context to which nothing can be assigned any more, of this class, as it was written.

    By its own validators it can be changed, until it is read. What is within a field, such as a list, can be changed
    later, too, but nobody sees that. Raises what validators raise.
    """
    made: C = _frozen(context_class).__pydantic_validator__.validate_json(written)
    object.__setattr__(made, "__sealed__", True)
    return made


@lru_cache(maxsize=FROZEN_KEPT_MAX)
def _frozen(context_class: type[C]) -> type[C]:
    """A class of the same name, of contexts of the class given, that can be sealed."""
    body: dict[str, Any] = {
        "__module__": context_class.__module__,
        "__qualname__": context_class.__qualname__,
        "__slots__": ("__sealed__",),
        "__setattr__": _set,
        "__delattr__": _delete,
    }
    meta: Any = type(context_class)
    return cast("type[C]", meta(context_class.__name__, (context_class,), body))


def _check_kind(name: str, data: Any, back: Any) -> None:
    """See to it that a model does not come back as one of another class."""
    if not isinstance(back, BaseModel) and not is_dataclass(back):
        return
    returned, comes_back = type(data), type(back)
    origin = getattr(returned, "__pydantic_generic_metadata__", {}).get("origin")
    if not issubclass(comes_back, returned) and comes_back is not origin:
        message = (
            f"{name} returned {returned.__name__}, which comes back as {comes_back.__name__} once it was stored: "
            "annotate it with the class that it returns, and give those of a union a field that tells them apart, "
            "such as a Literal"
        )
        raise ResultError(printable(message))


def _check_size(name: str, size: int) -> None:
    if size > RESULT_BYTES_MAX:
        message = (
            f"{name} returned {size} bytes, of {RESULT_BYTES_MAX} allowed, for it is written to the log: put it where "
            "it belongs, and return what names it"
        )
        raise ResultError(message)


def _set(context: Context, name: str, value: Any) -> None:
    _refuse_sealed(context, name)
    super(type(context), context).__setattr__(name, value)


def _delete(context: Context, name: str) -> None:
    _refuse_sealed(context, name)
    super(type(context), context).__delattr__(name)


def _refuse_sealed(context: Context, name: str) -> None:
    if hasattr(context, "__sealed__"):
        message = (
            f"a step cannot change the context, such as its {name!r}: nobody would see it. Let it return what is new, "
            "and change the context in the action that takes its done"
        )
        raise AttributeError(message)


def _declared(step: Step[Any, Any], error: BaseException | str) -> str:
    if isinstance(error, str):
        return ""
    above = type(error).__mro__
    found = [one for one in step.declared if one in above]
    return f".{error_name(min(found, key=above.index))}" if found else ""


def _unseen(*, lost: bool) -> dict[str, bool]:
    return {"lost": True} if lost else {}


def _told(error: BaseException | str, *, timed_out: bool) -> dict[str, str]:
    """What is said of an error: the name of its class, and its message."""
    if isinstance(error, str):
        return {"error": "TimeoutError" if timed_out else "Error", "message": on_one_line(error)}
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - an exception's own __str__ may raise too
        text = "(its message cannot be shown)"
    return {"error": type(error).__name__, "message": on_one_line(text)}
