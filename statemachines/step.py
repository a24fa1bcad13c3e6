"""Steps: work with side effects, which is done while a state is active.

    @flow.step(timeout=timedelta(seconds=30), retry=Retry(attempts=5, unless=CardRefused))
    async def charge(order: Order, call: Call) -> Charge:
        return await payments.charge(order.amount, idempotency_key=call.idempotency_key)

    charging = flow.state("charging", run=charge, initial=True)
    charging.on(charge.done, to=paid, do=note)
    charging.on(charge.failed_with(CardRefused), to=refused)

A step is given the context, which it cannot change, and what it is to know of the attempt. How it ended comes back as
an event: what it returned, or that it failed for good. A unit test calls it like the function that it is.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, Self, TypeVar, cast, overload

from pydantic import TypeAdapter
from tenacity.wait import wait_base, wait_exponential
from typing_extensions import TypeVar as TypeVarWithDefault

from statemachines.bounds import Bounds, Breaker, Limit
from statemachines.call import Call
from statemachines.command import Command
from statemachines.context import Context
from statemachines.described import Described, described_by, result_of
from statemachines.done import Done, make_step_done, make_step_failed
from statemachines.events import STEP_FAILED, Event, StepFailed
from statemachines.failing import describe_invalid
from statemachines.later import Later, Soon, without_later
from statemachines.parsed import adapter_of, reader_of
from statemachines.places import Place, calling_place

__all__ = [
    "TIMED_OUT",
    "AsyncCompensation",
    "AsyncStep",
    "Call",
    "Compensation",
    "CompensationMaker",
    "PlainCompensation",
    "PlainStep",
    "Retry",
    "Step",
    "StepMaker",
    "above_function",
    "bare_function",
    "error_name",
    "exponential",
    "kin_of",
    "steps_by_event",
]

C = TypeVar("C", bound=Context)
R = TypeVar("R")
S = TypeVar("S", bound=Soon | None)
"""The same where it is no ``Later``; so a checker of types finds a union as it is written, and not what is common."""
W = TypeVarWithDefault("W", default=R)
"""What a function returns when it is called: its result, or what is to be done to come to that."""
N = TypeVarWithDefault("N", default=None)
"""The same of what comes to nothing."""
T = TypeVar("T")

TIMED_OUT = "timed_out"


def exponential(first: float, most: float) -> wait_base:
    """Wait ``first`` seconds before the second attempt, twice as long before each further one, at most ``most``."""
    return wait_exponential(multiplier=first, max=most)


_OF_TENACITY = {
    "stop": "attempts= of Retry for how often it is tried, and within= of the step for how long, as in "
    "@flow.step(retry=Retry(attempts=5), within=timedelta(minutes=10))",
    "retry": "unless= for the exceptions after which it is not tried again, as in Retry(unless=CardRefused); it is "
    "after all others, and a result that is not good enough is one that the step raises instead of returning it",
}
"""What stands here for settings that have other names there."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried, and how long is waited in between."""

    attempts: int = 5
    """At most, the first among them; those that are cut short as their engines are stopped do not count."""
    wait: wait_base = field(default_factory=lambda: exponential(1, 60))
    """A wait strategy of ``tenacity``."""
    unless: type[BaseException] | tuple[type[BaseException], ...] = ()
    """Exceptions after which it is not tried again."""

    def __new__(cls, *_: object, **settings: object) -> Self:
        """Say what to write instead of a setting that only ``tenacity`` has. Raises TypeError."""
        for name, instead in _OF_TENACITY.items():
            if name in settings:
                message = f"Retry has no {name}=, for of tenacity it takes wait= alone: write {instead}"
                raise TypeError(message)
        return object.__new__(cls)


@dataclass(slots=True, eq=False)
class Step(Generic[C, R]):
    """A step of a pipeline; made by ``Pipeline.step``, and asked for by the states that are given it with ``run=``.

    It is called like its function.
    """

    name: str
    function: Callable[..., Any]
    """Of (context, call); of a compensation: of (context, made, call)."""
    timeout: timedelta | None
    """How long one attempt may take; None: as long as it does."""
    retry: Retry
    at_once: int | None
    """How many of it may go on at once in one engine; None: it has no limit of its own."""
    bounds: Bounds
    place: Place
    declared: list[type[BaseException]] = field(default_factory=list, init=False)
    """The exceptions that ``failed_with`` was asked for, in that order."""
    done_class: type[Done] | None = field(default=None, init=False)
    failed_class: type[StepFailed] | None = field(default=None, init=False)
    """The classes that ``done`` and ``failed`` return, once they were asked for."""
    failed_classes: dict[str, type[StepFailed]] = field(default_factory=dict, init=False)
    """By the end of its type, what a failure comes as."""
    compensations: list[Compensation[C, R]] = field(default_factory=list, init=False)
    """Those that were made of it; more than one is a mistake."""
    _adapter: TypeAdapter[R] | None = field(default=None, init=False)
    _read: Callable[[Any], R] | None = field(default=None, init=False)
    _is_async: bool | None = field(default=None, init=False)
    _describes: tuple[type[Described[Any]] | None] | None = field(default=None, init=False)
    """What these return, once they were asked for."""

    def __call__(self, context: C, call: Call) -> R | Coroutine[Any, Any, R]:
        """Do it, as a unit test does."""
        done: R | Coroutine[Any, Any, R] = self.function(context, call)
        return done

    @overload
    def compensate(
        self, function: Callable[[C, R | None, Call], Awaitable[Later | None]], /
    ) -> AsyncCompensation[C, R]: ...

    @overload
    def compensate(
        self, function: Callable[[C, R | None, Call], Command[None]], /
    ) -> PlainCompensation[C, R, Command[None]]: ...

    @overload
    def compensate(
        self, function: Callable[[C, R | None, Call], Described[None]], /
    ) -> PlainCompensation[C, R, Described[None]]: ...

    @overload
    def compensate(
        self, function: Callable[[C, R | None, Call], Later | None], /
    ) -> PlainCompensation[C, R]: ...

    @overload
    def compensate(
        self,
        function: None = None,
        /,
        *,
        timeout: timedelta | None = ...,
        retry: Retry | None = ...,
        at_once: int | None = ...,
        on_error: bool = ...,
        heartbeat: timedelta | None = ...,
        within: timedelta | None = ...,
        breaker: Breaker | None = ...,
        limit: Limit | None = ...,
    ) -> CompensationMaker[C, R]: ...

    def compensate(
        self,
        function: Callable[[C, R | None, Call], Any] | None = None,
        /,
        *,
        timeout: timedelta | None = None,
        retry: Retry | None = None,
        at_once: int | None = None,
        on_error: bool = False,
        heartbeat: timedelta | None = None,
        within: timedelta | None = None,
        breaker: Breaker | None = None,
        limit: Limit | None = None,
    ) -> CompensationMaker[C, R] | Compensation[C, R]:
        """Make a compensation of a function of (context, made, call), sync or async: it undoes what this step did.

        It is done once for each time that this step was, where the run is undone. ``made`` is what the step returned;
        None where it is not known what it did. ``call.of`` is the call that is undone. Without any settings it is
        written ``@charge.compensate``, or ``@charge.compensate()``.

        Args:
            function: what it is written above, where it has no settings.
            timeout: how long one attempt may take; None: as long as it does.
            retry: how often it is tried, and how long is waited in between; None: as ``Retry()`` says.
            at_once: how many of it may go on at once in one engine; None: it has no limit of its own.
            on_error: whether it is done for a step that failed, too, all of whose attempts have raised.
            heartbeat: how long an attempt may be silent between two calls of ``call.heartbeat()``; None: it need not be
                called.
            within: how long all attempts may take together, from the beginning of the first; None: as long as they do.
            breaker: lets no attempt begin while what it depends on is out of order; None: it always may.
            limit: how many may go on at once, and begin in a second, in all engines together; None: it has none.
        """
        tried, bounds = Retry() if retry is None else retry, Bounds(heartbeat, within, breaker, limit)
        make = CompensationMaker(self, timeout, tried, at_once, bounds, on_error, calling_place())
        return make if function is None else make(above_function(function, f"@{self.name}.compensate"))

    @property
    def compensation(self) -> Compensation[C, R] | None:
        """What undoes it; None: nothing does."""
        return self.compensations[0] if self.compensations else None

    @property
    def is_async(self) -> bool:
        """Whether its function is to be awaited."""
        if self._is_async is None:
            self._is_async = _is_async(self.function)
        return self._is_async

    @property
    def describes(self) -> type[Described[Any]] | None:
        """The class of work that its function describes, by its annotation; None: the function does it itself."""
        if self._describes is None:
            try:
                found = described_by(self.annotation_of("return"))
            except Exception:  # noqa: BLE001 - annotations are user code, and validation tells of this one
                return None
            self._describes = (found,)
        return self._describes[0]

    @property
    def takes_thread(self) -> bool:
        """Whether each attempt takes a thread."""
        return not self.is_async and self.describes is None

    @property
    def done(self) -> type[Done[R]]:
        """The event that says that it is done; ``result`` is what it returned."""
        if self.done_class is None:
            self.done_class = make_step_done(self.name, self._validated)
        return cast("type[Done[R]]", self.done_class)

    @property
    def failed(self) -> type[StepFailed]:
        """The event that says that it has failed for good, for whatever reason: took too long, too."""
        if self.failed_class is None:
            self.failed_class = make_step_failed(self.name)
        return self.failed_class

    @property
    def timed_out(self) -> type[StepFailed]:
        """The event that says that its last attempt took longer than it may."""
        return self._failed_by(TIMED_OUT)

    def failed_with(self, error: type[BaseException]) -> type[StepFailed]:
        """The event that says that its last attempt raised an exception of this class, or of one below it.

        Its type names the most specific class that was asked for. Transitions on the classes above that take it, too,
        so that they belong behind, as with ``except``.
        """
        if error not in self.declared:
            self.declared.append(error)
        return self._failed_by(error_name(error))

    @property
    def events(self) -> dict[str, type[Event]]:
        """By type, the classes that its outcomes come as."""
        ends = dict.fromkeys([TIMED_OUT, *map(error_name, self.declared)])
        classes = [self.done, self._failed_by(""), *map(self._failed_by, ends)]
        return {one.event_type(): one for one in classes}

    @property
    def says_result(self) -> bool:
        """Whether its function has an annotation of what it returns."""
        return "return" in inspect.get_annotations(bare_function(self.function))

    @property
    def result_type(self) -> Any:
        """What it returns in the end, or what the work comes to that it describes, as its annotation says.

        Raises:
            TypeError: there is none, or it does not say that.
            Exception: whatever comes of an annotation that cannot be resolved.
        """
        if not self.says_result:
            message = f"{self.name} does not say what it returns"
            raise TypeError(message)
        said = self.annotation_of("return")
        return without_later(said) if described_by(said) is None else result_of(said)

    def annotation_of(self, name: str) -> Any:
        """What its function says of a parameter, or as ``return`` of what it returns.

        Raises:
            KeyError: nothing.
            Exception: whatever comes of an annotation that cannot be resolved.
        """
        bare = bare_function(self.function)
        only = types.SimpleNamespace(__annotations__={name: inspect.get_annotations(bare)[name]})
        names = getattr(bare, "__globals__", {}), dict(_closure(bare))
        return typing.get_type_hints(only, *names, include_extras=True)[name]

    @property
    def adapter(self) -> TypeAdapter[R]:
        """What reads and writes its result. Raises what ``result_type`` does, and what pydantic does."""
        if self._adapter is None:
            self._adapter = adapter_of(self.result_type)
        return self._adapter

    @property
    def read_result(self) -> Callable[[Any], R]:
        """What makes a result of the data that was read from its JSON. Raises what ``adapter`` does, and validators."""
        if self._read is None:
            self._read = reader_of(self.adapter.core_schema, cast("Any", self.adapter.validator))
        return self._read

    def _validated(self, data: Any) -> R:
        try:
            return self.read_result(data)
        except BaseException as error:  # noqa: BLE001 - validators and annotations are user code
            raise ValueError(describe_invalid(error)) from None

    def _failed_by(self, end: str) -> type[StepFailed]:
        if end not in self.failed_classes:
            event_type = f"{STEP_FAILED}{self.name}.{end}".removesuffix(".")
            self.failed_classes[end] = self.failed.named(event_type)
        return self.failed_classes[end]

    def __str__(self) -> str:
        """The step's name."""
        return self.name


class PlainStep(Step[C, R], Generic[C, R, W]):
    """A step whose function does the work itself, or describes it."""

    __slots__ = ()

    def __call__(self, context: C, call: Call) -> W:  # type: ignore[override]  # what is described is no result
        """What it returns."""
        done: W = self.function(context, call)
        return done


class AsyncStep(Step[C, R]):
    """A step whose function is to be awaited."""

    __slots__ = ()

    def __call__(self, context: C, call: Call) -> Coroutine[Any, Any, R]:
        """What comes to what it returns once it is awaited."""
        done: Coroutine[Any, Any, R] = self.function(context, call)
        return done


@dataclass(frozen=True, slots=True)
class StepMaker(Generic[C]):
    """What ``@flow.step(...)`` is: it makes a step of a function."""

    add: Callable[[Step[C, Any]], None]
    timeout: timedelta | None
    retry: Retry
    at_once: int | None
    bounds: Bounds
    place: Place

    @overload
    def __call__(  # type: ignore[overload-overlap]  # what is awaitable comes first
        self, function: Callable[[C, Call], Awaitable[S]]
    ) -> AsyncStep[C, S]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the same
        self, function: Callable[[C, Call], Awaitable[R | Later]]
    ) -> AsyncStep[C, R]: ...

    @overload
    def __call__(self, function: Callable[[C, Call], Command[R]]) -> PlainStep[C, R, Command[R]]: ...

    @overload
    def __call__(self, function: Callable[[C, Call], Described[R]]) -> PlainStep[C, R, Described[R]]: ...

    @overload
    def __call__(self, function: Callable[[C, Call], S]) -> PlainStep[C, S]: ...

    @overload
    def __call__(self, function: Callable[[C, Call], R | Later]) -> PlainStep[C, R]: ...

    def __call__(self, function: Callable[[C, Call], Any]) -> Step[C, Any]:
        """The step, which is one of its pipeline from now on."""
        made = AsyncStep if _is_async(function) else PlainStep
        name = _name_of(function)
        step: Step[C, Any] = made(
            name, function, self.timeout, self.retry, self.at_once, self.bounds, self.place
        )
        self.add(step)
        return step


@dataclass(slots=True, eq=False, kw_only=True)
class Compensation(Step[C, None], Generic[C, R]):
    """The work that undoes a step; made by ``Step.compensate``, and asked for where the run is undone.

    It is called like its function.
    """

    of: Step[C, R]
    """What it undoes."""
    on_error: bool
    """Whether it is done for a step that failed, too, all of whose attempts have raised."""

    def __call__(  # type: ignore[override]  # it is told what the step made
        self, context: C, made: R | None, call: Call
    ) -> Coroutine[Any, Any, None] | None:
        """Do it, as a unit test does."""
        done: Coroutine[Any, Any, None] | None = self.function(context, made, call)
        return done


class PlainCompensation(Compensation[C, R], Generic[C, R, N]):
    """A compensation whose function does the work itself, or describes it."""

    __slots__ = ()

    def __call__(self, context: C, made: R | None, call: Call) -> N:  # type: ignore[override]  # as above
        """Do it, or say what is to be done."""
        done: N = self.function(context, made, call)
        return done


class AsyncCompensation(Compensation[C, R]):
    """A compensation whose function is to be awaited."""

    __slots__ = ()

    def __call__(  # type: ignore[override]  # as above
        self, context: C, made: R | None, call: Call
    ) -> Coroutine[Any, Any, None]:
        """What is to be awaited."""
        done: Coroutine[Any, Any, None] = self.function(context, made, call)
        return done


@dataclass(frozen=True, slots=True)
class CompensationMaker(Generic[C, R]):
    """What ``@charge.compensate(...)`` is: it makes a compensation of a function."""

    of: Step[C, R]
    timeout: timedelta | None
    retry: Retry
    at_once: int | None
    bounds: Bounds
    on_error: bool
    place: Place

    @overload
    def __call__(
        self, function: Callable[[C, R | None, Call], Awaitable[Later | None]]
    ) -> AsyncCompensation[C, R]: ...

    @overload
    def __call__(
        self, function: Callable[[C, R | None, Call], Command[None]]
    ) -> PlainCompensation[C, R, Command[None]]: ...

    @overload
    def __call__(
        self, function: Callable[[C, R | None, Call], Described[None]]
    ) -> PlainCompensation[C, R, Described[None]]: ...

    @overload
    def __call__(self, function: Callable[[C, R | None, Call], Later | None]) -> PlainCompensation[C, R]: ...

    def __call__(self, function: Callable[[C, R | None, Call], Any]) -> Compensation[C, R]:
        """The compensation, which is that of its step from now on."""
        made = AsyncCompensation if _is_async(function) else PlainCompensation
        compensation: Compensation[C, R] = made(
            name=_name_of(function),
            function=function,
            timeout=self.timeout,
            retry=self.retry,
            at_once=self.at_once,
            bounds=self.bounds,
            place=self.place,
            of=self.of,
            on_error=self.on_error,
        )
        self.of.compensations.append(compensation)
        return compensation


def bare_function(function: Any) -> Any:
    """The function itself, where it is wrapped, has arguments already, or is an object that is called."""
    *_, innermost = _layers(function)
    return innermost


def above_function(given: T, decorator: str) -> T:
    """What a decorator without settings is above. Raises TypeError: that is no function."""
    if not callable(given):
        message = (
            f"{decorator} stands above a function, and was given {given!r}: its settings have names, as in "
            f"{decorator}(timeout=timedelta(seconds=30))"
        )
        raise TypeError(message)
    return given


def error_name(error: Any) -> str:
    """What an exception is called in the types of events; whatever it is, which validation looks at."""
    return str(getattr(error, "__name__", error))


def _is_async(function: Any) -> bool:
    return any(map(inspect.iscoroutinefunction, _layers(function)))


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _layers(function: Any) -> Iterator[Any]:
    while True:
        if callable(function) and not isinstance(function, functools.partial | type | types.FunctionType):
            function = function if inspect.isroutine(function) else type(function).__call__
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return


def _closure(function: Any) -> Iterator[tuple[str, Any]]:
    """What a function has of the scopes around it."""
    code: types.CodeType | None = getattr(function, "__code__", None)
    cells: tuple[types.CellType, ...] = getattr(function, "__closure__", None) or ()
    for name, cell in zip(() if code is None else code.co_freevars, cells, strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # nothing was assigned to it yet
            continue


def kin_of(steps: Iterable[Step[Any, Any]]) -> dict[str, tuple[str, ...]]:
    """By the type of a failure with an exception, the types of those with the exceptions above that."""
    found: dict[str, tuple[str, ...]] = {}
    for step in steps:
        classes = [one for one in step.declared if isinstance(one, type)]
        for one in classes:
            above = (other for other in classes if other is not one and issubclass(one, other))
            types_above = tuple(f"{STEP_FAILED}{step.name}.{error_name(other)}" for other in above)
            if types_above:
                found[f"{STEP_FAILED}{step.name}.{error_name(one)}"] = types_above
    return found


def steps_by_event(steps: Iterable[Step[Any, Any]]) -> Mapping[type[Event], Step[Any, Any]]:
    """By each class of events that was asked for, the step that it is of."""
    found: dict[type[Event], Step[Any, Any]] = {}
    for step in steps:
        classes = (step.done_class, step.failed_class, *step.failed_classes.values())
        found |= {one: step for one in classes if one is not None}
    return found
