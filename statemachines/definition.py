"""How a pipeline is written down: a table of moves over plain functions.

Nothing is checked while the table is being written, so that ``validation`` can report all mistakes at once;
and nothing has a side effect, so that a pipeline's file can be imported anywhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar, overload

from statemachines.bounds import Bounds, Breaker, Limit
from statemachines.command import Command
from statemachines.context import Context
from statemachines.described import Described
from statemachines.done import Done, make_done
from statemachines.effects import Out
from statemachines.events import After, Cancelled, Event, KeyBy, StepFailed, make_after
from statemachines.later import Later, Soon
from statemachines.lines import Delay, Handler, Initial, Keyed, Kind, Move, Start, name_of
from statemachines.ordering import OrderBy
from statemachines.places import Place, calling_place
from statemachines.policies import Closed, NoRun, Once, PolicyLine, Unexpected
from statemachines.stated import Undo
from statemachines.step import AsyncStep, Call, PlainStep, Retry, Step, StepMaker, above_function
from statemachines.topic import Policy, Topic

__all__ = [
    "Delay",
    "Handler",
    "Initial",
    "Keyed",
    "Kind",
    "Move",
    "Pipeline",
    "Policy",
    "Start",
    "State",
    "Topic",
    "name_of",
]

C = TypeVar("C", bound=Context)
E = TypeVar("E", bound=Event)
R = TypeVar("R")
S = TypeVar("S", bound=Soon | None)

OnError = Literal["refuse", "ignore"]
TimersFire = Literal["after_backlog", "on_time"]


@dataclass(slots=True, eq=False)
class State(Generic[C]):
    """A state of a pipeline; made by ``Pipeline.state``, ``State.state``, ``State.region`` or ``State.history``.

    A state with states in it is compound: one of them is active while it is. A state with regions is parallel: all of
    them are. Names are unique in the whole pipeline.
    """

    pipeline: Pipeline[C]
    name: str
    initial: bool
    final: bool
    description: str
    place: Place
    parent: State[C] | None = None
    kind: Kind = "state"
    output: Callable[..., Any] | None = None
    """Of a final state: what the ``done`` event of the state around it carries."""
    deep: bool = False
    """Of a history: whether it remembers the innermost states, or those of its own level."""
    entries: list[tuple[Handler, Place]] = field(default_factory=list)
    exits: list[tuple[Handler, Place]] = field(default_factory=list)
    beginning: Initial | None = None
    """Where it begins, if that is not the state inside it that is initial; of a history, where it leads as long as
    there is nothing to remember."""
    done_class: type[Done] | None = None
    """The class that ``done`` returns, once it was asked for."""
    tags: tuple[str, ...] = ()
    run: Step[C, Any] | None = None
    """The step that is done while it is active."""
    undo: Undo = "in_order"
    """Whether what it owes is undone one after the other, from the last on or as is stated, or all at once."""

    @property
    def done(self) -> type[Done]:
        """The event that says that this state is done: a compound state when it reaches a final one, a parallel state
        when all its regions have. To be taken by ``on`` of this state or of one around it.
        """
        if self.done_class is None:
            self.done_class = make_done(self.name)
        return self.done_class

    def state(
        self,
        name: str,
        *,
        initial: bool = False,
        final: bool = False,
        output: Callable[[C, Any], Any] | None = None,
        run: Step[C, Any] | None = None,
        undo: Undo = "in_order",
        tags: Sequence[str] = (),
        description: str = "",
    ) -> State[C]:
        """Add a state inside this one. One is ``initial``; a ``final`` one makes this state done.

        Args:
            name: unique in the pipeline.
            initial: whether it is entered when this state is.
            final: whether this state is done when it is entered.
            output: of a final state: returns, from (context, event), what ``done.data`` is to be.
            run: the step that is done while it is active.
            undo: how what belongs to it is undone in it: one after the other, from the last on; all at once
                (``"parallel"``); or in the order of these compensations, what is not named behind them.
            tags: words that guards may ask for instead of the states that have them.
            description: a sentence for people.
        """
        place, words = calling_place(), _tags(tags)
        made = State(self.pipeline, name, initial, final, description, place, self, output=output, tags=words)
        made.run, made.undo = run, undo
        return self.pipeline.add_state(made)

    def region(
        self, name: str, *, undo: Undo = "in_order", tags: Sequence[str] = (), description: str = ""
    ) -> State[C]:
        """Add a region: this state is parallel, and all its regions are active while it is."""
        place, words = calling_place(), _tags(tags)
        made = State(self.pipeline, name, False, False, description, place, self, "region", tags=words)
        made.undo = undo
        return self.pipeline.add_state(made)

    def history(
        self,
        name: str,
        *,
        deep: bool = False,
        default: State[C] | str | Sequence[State[C] | str] | None = None,
        do: Callable[[C, Any], Out] | None = None,
    ) -> State[C]:
        """Add a history: who goes there goes to where this state was when it was left last.

        Args:
            name: unique in the pipeline.
            deep: whether the innermost states are remembered, or those directly inside this one.
            default: where it leads before this state was ever left; None: where this state begins.
            do: what is done on the way there.
        """
        place = calling_place()
        made = State(self.pipeline, name, False, False, "", place, self, "history", deep=deep)
        if default is not None or do is not None:
            made.beginning = self._initial(default, do, place)
        return self.pipeline.add_state(made)

    def initially(
        self, to: State[C] | str | Sequence[State[C] | str], *, do: Callable[[C, Any], Out] | None = None
    ) -> None:
        """Say where this state begins, and what is done on the way; instead of ``initial=True`` at one inside it.

        It may be further inside; and in several regions, where a list names one in each.
        """
        self.beginning = self._initial(to, do, calling_place())

    def _initial(self, to: Any, do: Handler | None, place: Place) -> Initial:
        targets = _targets(to)
        return Initial(tuple(map(str, targets)), do, place, _first_stranger(targets, self.pipeline))

    def entry(self, do: Callable[[C, Any], Out]) -> None:
        """Do this whenever the state is entered; several are done in the order they were added."""
        self.entries.append((do, calling_place()))

    def exit(self, do: Callable[[C, Any], Out]) -> None:
        """Do this whenever the state is left; several are done in the order they were added."""
        self.exits.append((do, calling_place()))

    def on(
        self,
        event: type[E],
        *,
        to: State[C] | str | Sequence[State[C] | str] | None = None,
        when: Callable[[C, E], bool] | None = None,
        do: Callable[[C, E], Out] | None = None,
        reenter: bool = False,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a transition out of this state; several on one event are tried in the order they were added.

        A transition of a state inside this one comes first.

        Args:
            event: the class of events that it takes.
            to: the target; several, in a list, one in each of several regions; None stays in the state.
            when: a pure condition on (context, event).
            do: changes the context that it is given, and may return effects.
            reenter: leave this state and enter it again, where the target is this state or inside it.
            compensate: undo what steps of this state have done, and of states inside it, before the target is entered;
                or of the state that is named, which is around this one or inside it.
        """
        self.pipeline.add_move(self.name, event, to, when, do, reenter=reenter, compensate=compensate)

    def always(
        self,
        *,
        to: State[C] | str | Sequence[State[C] | str] | None = None,
        when: Callable[[C, Any], bool] | None = None,
        do: Callable[[C, Any], Out] | None = None,
        reenter: bool = False,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a transition that waits for no event: it is taken as soon as ``when`` holds, before anything else.

        ``when`` and ``do`` are given the event that led here.
        """
        self.pipeline.add_move(self.name, None, to, when, do, reenter=reenter, compensate=compensate)

    def after(
        self,
        delay: timedelta | Callable[[C], timedelta | datetime | None],
        *,
        to: State[C] | str | Sequence[State[C] | str] | None = None,
        when: Callable[[C, After], bool] | None = None,
        do: Callable[[C, After], Out] | None = None,
        reenter: bool = False,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a transition that is taken once this state has been active for so long; when it is left, it is not.

        Args:
            delay: how long, from when the state is entered. A function is asked with the context once the transition
                that entered the state is done, and answers how long, or at which time; None for never.
            to: as of ``on``, and so the others.
            when: a pure condition on (context, event).
            do: changes the context that it is given, and may return effects.
            reenter: leave this state and enter it again, where the target is this state or inside it.
            compensate: as of ``on``.
        """
        self.pipeline.add_timer(self.name, delay, to, when, do, reenter=reenter, compensate=compensate)

    def policy(self, event: type[Event] | None = None, *, unexpected: Unexpected) -> None:
        """Say what becomes of an event that this state does not take, nor one inside or around it.

        Args:
            event: the class of events that it is for; None: all.
            unexpected: ``"defer"`` or ``Defer(...)``, ``"ignore"``, ``"dead_letter"``.
        """
        self.pipeline.policies.append(
            PolicyLine(self.name, event, {"unexpected": unexpected}, None, None, calling_place())
        )

    @property
    def states(self) -> list[State[C]]:
        """The states directly inside this one, regions and histories among them, in the order they were added."""
        return [state for state in self.pipeline.states if state.parent is self]

    def __str__(self) -> str:
        """The state's name."""
        return self.name


@dataclass(slots=True, eq=False)
class Pipeline(Generic[C]):
    """A named, versioned state machine definition.

    Args:
        name: what its runs are found by, with the namespace and their key.
        context: the class of a run's durable data.
        version: a number that changes whenever the definition does.
        topics: what it reads; a name stands for a ``Topic`` with the default settings. With none, all its events come
            from other runs, operators and clients.
        no_run: what becomes of an event whose key has no run and that starts none: ``"dead_letter"``, ``"ignore"``,
            ``"defer"`` until it has one, or ``"start"``: a run begins with a context of its defaults, and is offered
            the event.
        unexpected: what becomes of an event that no active state of its run takes: ``"defer"`` until one does,
            ``"ignore"`` or ``"dead_letter"``. ``Defer(ttl, then=...)`` says for how long.
        closed: what becomes of an event whose run has ended: ``"dead_letter"``, ``"ignore"``, or ``"restart"``: it is
            taken as if there were no run, and one that starts a run starts the next generation of the key.
        on_error: where a function fails and no transition takes the failure: refuse the event and keep nothing of
            the move, or undo what that function did and go on.
        timers: whether a timer that is due waits for the events that came before it was (``"after_backlog"``): for all
            that this pipeline reads to be applied so far, which is nothing where it reads no topic; or fires
            ``"on_time"``, whatever waits in Kafka.
        undo: how what the run owes is undone: one after the other, from the last on; all at once (``"parallel"``);
            or in the order of these compensations, by their names, what is not named behind them.
        description: a sentence for people.
    """

    name: str
    context: type[C]
    version: int = field(default=1, kw_only=True)
    topics: Sequence[Topic | str] = field(default=(), kw_only=True)
    no_run: NoRun = field(default="dead_letter", kw_only=True)
    unexpected: Unexpected = field(default="defer", kw_only=True)
    closed: Closed = field(default="dead_letter", kw_only=True)
    on_error: OnError = field(default="refuse", kw_only=True)
    timers: TimersFire = field(default="after_backlog", kw_only=True)
    undo: Undo = field(default="in_order", kw_only=True)
    description: str = field(default="", kw_only=True)
    states: list[State[C]] = field(default_factory=list, init=False)
    """All of them, however deep, in the order they were added."""
    moves: list[Move] = field(default_factory=list, init=False)
    starts: list[Start] = field(default_factory=list, init=False)
    policies: list[PolicyLine] = field(default_factory=list, init=False)
    """What is said of single event types and states."""
    keys: list[Keyed] = field(default_factory=list, init=False)
    steps: list[Step[C, Any]] = field(default_factory=list, init=False)
    place: Place = field(default_factory=calling_place, init=False)

    def state(
        self,
        name: str,
        *,
        initial: bool = False,
        final: bool = False,
        output: Callable[[C, Any], Any] | None = None,
        run: Step[C, Any] | None = None,
        undo: Undo = "in_order",
        tags: Sequence[str] = (),
        description: str = "",
    ) -> State[C]:
        """Add a state. One is ``initial``; a run that reaches a ``final`` one is completed.

        The ``output`` of a final one returns, from (context, event), what the run says at its end.
        The step ``run`` is done while the state is active. What belongs to it is undone in it one after the other, or
        in parallel, or in the order of the compensations that ``undo`` lists. Guards may ask for ``tags`` instead of
        the states that have them.
        """
        place, words = calling_place(), _tags(tags)
        return self.add_state(
            State(
                self, name, initial, final, description, place, output=output, tags=words, run=run, undo=undo
            )
        )

    def add_state(self, made: State[C]) -> State[C]:
        """Add a state that was made; ``state``, ``region`` and ``history`` are the ways to say it."""
        self.states.append(made)
        return made

    @overload
    def step(  # type: ignore[overload-overlap]  # what is awaitable comes first
        self, function: Callable[[C, Call], Awaitable[S]], /
    ) -> AsyncStep[C, S]: ...

    @overload
    def step(  # type: ignore[overload-overlap]  # the same
        self, function: Callable[[C, Call], Awaitable[R | Later]], /
    ) -> AsyncStep[C, R]: ...

    @overload
    def step(self, function: Callable[[C, Call], Command[R]], /) -> PlainStep[C, R, Command[R]]: ...

    @overload
    def step(self, function: Callable[[C, Call], Described[R]], /) -> PlainStep[C, R, Described[R]]: ...

    @overload
    def step(self, function: Callable[[C, Call], S], /) -> PlainStep[C, S]: ...

    @overload
    def step(self, function: Callable[[C, Call], R | Later], /) -> PlainStep[C, R]: ...

    @overload
    def step(
        self,
        function: None = None,
        /,
        *,
        timeout: timedelta | None = ...,
        retry: Retry | None = ...,
        at_once: int | None = ...,
        heartbeat: timedelta | None = ...,
        within: timedelta | None = ...,
        breaker: Breaker | None = ...,
        limit: Limit | None = ...,
    ) -> StepMaker[C]: ...

    def step(
        self,
        function: Callable[[C, Call], Any] | None = None,
        /,
        *,
        timeout: timedelta | None = None,
        retry: Retry | None = None,
        at_once: int | None = None,
        heartbeat: timedelta | None = None,
        within: timedelta | None = None,
        breaker: Breaker | None = None,
        limit: Limit | None = None,
    ) -> StepMaker[C] | Step[C, Any]:
        """Make a step of a function of (context, call), sync or async, which does work with side effects.

        It is done while a state is active that is given it with ``run=``, outside of any transition, and is given a
        context that it cannot change. What it returns, as its annotation says, comes back as its ``done``. Without any
        settings it is written ``@flow.step``, or ``@flow.step()``.

        Args:
            function: what it is written above, where it has no settings.
            timeout: how long one attempt may take; None: as long as it does. Of what can be undone, and whose state is
                left, it is waited for so long, before it counts as not known what it did; and hardly at all where it is
                None.
            retry: how often it is tried, and how long is waited in between; None: as ``Retry()`` says.
            at_once: how many of it may go on at once in one engine; None: it has no limit of its own.
            heartbeat: how long an attempt may be silent between two calls of ``call.heartbeat()``; None: it need not be
                called.
            within: how long all attempts may take together, from the beginning of the first; None: as long as they do.
            breaker: lets no attempt begin while what it depends on is out of order; None: it always may.
            limit: how many may go on at once, and begin in a second, in all engines together; None: it has none.
        """
        tried, bounds = Retry() if retry is None else retry, Bounds(heartbeat, within, breaker, limit)
        make = StepMaker(self.steps.append, timeout, tried, at_once, bounds, calling_place())
        return make if function is None else make(above_function(function, "@flow.step"))

    def start(
        self,
        event: type[E],
        build: Callable[[E], C],
        *,
        to: State[C] | str | Sequence[State[C] | str] | None = None,
        when: Callable[[C, E], bool] | None = None,
        do: Callable[[C, E], Out] | None = None,
    ) -> None:
        """Let an event start a run: ``build`` makes its context, ``do`` may ask for effects.

        Several on one event are tried in the order they were added. Where the condition of none holds, none begins: the
        event is one without a run, and meets ``no_run``.

        Args:
            event: the class of events that it takes.
            build: makes the context of the event.
            to: where the run begins: a state, or several, one in each of several regions; None: the initial state.
            when: a pure condition on (context, event), asked with the context that ``build`` has made.
            do: changes the context that it is given, and may return effects.
        """
        place, targets = calling_place(), _targets(to)
        stranger = _first_stranger(targets, self)
        self.starts.append(Start(event, build, tuple(map(str, targets)), do, place, stranger, when))

    def key(self, event: type[Event], *, by: KeyBy) -> None:
        """Say which run of this pipeline an event belongs to, whatever its class says; as ``key=`` of a class does."""
        self.keys.append(Keyed(event, by, calling_place()))

    def on(
        self,
        event: type[E],
        *,
        to: State[C] | str | Sequence[State[C] | str] | None = None,
        when: Callable[[C, E], bool] | None = None,
        do: Callable[[C, E], Out] | None = None,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a transition out of any state that is not final; a state's own transitions come first.

        With ``compensate`` all that steps of the run have done, and that can be undone, is undone after ``do`` and
        before the target is entered, or what those of the state have that is named; so of the next two.
        """
        self.add_move(None, event, to, when, do, compensate=compensate)

    def on_failure(
        self,
        *,
        to: State[C] | str | Sequence[State[C] | str] | None = None,
        when: Callable[[C, StepFailed], bool] | None = None,
        do: Callable[[C, StepFailed], Out] | None = None,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a transition on the failures of steps that no other one takes, wherever in the file it stands."""
        self.add_move(None, StepFailed, to, when, do, last=True, compensate=compensate)

    def on_cancel(
        self,
        *,
        to: State[C] | str | Sequence[State[C] | str],
        do: Callable[[C, Cancelled], Out] | None = None,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Say where a run goes that an operator cancels, whatever its state; without this, it ends where it is.

        It is a transition of the whole pipeline: what a state says by ``on(Cancelled, ...)`` comes first.

        Args:
            to: the target; a final one ends the run.
            do: changes the context that it is given, and may return effects.
            compensate: whether what its steps have done is undone before it goes there.
        """
        self.add_move(None, Cancelled, to, None, do, compensate=compensate)

    def after(
        self,
        delay: timedelta | Callable[[C], timedelta | datetime | None],
        *,
        to: State[C] | str | Sequence[State[C] | str] | None = None,
        when: Callable[[C, After], bool] | None = None,
        do: Callable[[C, After], Out] | None = None,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a transition that is taken once the run has been going on for so long, whatever its state."""
        self.add_timer(None, delay, to, when, do, compensate=compensate)

    def policy(
        self,
        event: type[Event],
        *,
        no_run: NoRun | None = None,
        unexpected: Unexpected | None = None,
        closed: Closed | None = None,
        duplicate_by: str | Sequence[str] | None = None,
        duplicate_for: timedelta | None = None,
        order_by: OrderBy | str | None = None,
    ) -> None:
        """Say what becomes of events of one type where they do not fit.

        Args:
            event: the class of events that it is for.
            no_run: as of the pipeline, whose own is for all others; so are the next two.
            unexpected: what becomes of one that no active state of its run takes.
            closed: what becomes of one whose run has ended.
            duplicate_by: a field of the data, or several, by which an event is known again, whatever its id: within
                the runs of its key it is taken once.
            duplicate_for: for how long; None: for ever.
            order_by: how these events are in order: an older one is not applied once a newer one was. The name of
                a field stands for ``OrderBy(name)``. It is not asked of what a run sends to itself, which comes in the
                order in which it was sent.
        """
        given = {"no_run": no_run, "unexpected": unexpected, "closed": closed}
        decisions = {name: one for name, one in given.items() if one is not None}
        once: Once | None = None
        if duplicate_by is not None or duplicate_for is not None:
            once = Once(_fields(duplicate_by), duplicate_for)
        order = OrderBy(order_by) if isinstance(order_by, str) else order_by
        self.policies.append(PolicyLine(None, event, decisions, once, order, calling_place()))

    def add_timer(
        self,
        source: str | None,
        delay: Delay,
        to: State[C] | str | Sequence[State[C] | str] | None,
        when: Callable[..., bool] | None,
        do: Callable[..., Out] | None,
        *,
        reenter: bool = False,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a timer and the transition on it; ``after`` is the way to say it."""
        number = sum(1 for move in self.moves if move.delay is not None and move.source == source)
        event = make_after(source, number)
        self.add_move(source, event, to, when, do, reenter=reenter, delay=delay, compensate=compensate)

    def add_move(
        self,
        source: str | None,
        event: type[Event] | None,
        to: State[C] | str | Sequence[State[C] | str] | None,
        when: Callable[..., bool] | None,
        do: Callable[..., Out] | None,
        *,
        reenter: bool = False,
        delay: Delay | None = None,
        last: bool = False,
        compensate: bool | State[C] | str = False,
    ) -> None:
        """Add a line to the table; ``on``, ``always``, ``after`` and ``on_failure`` are the ways to say it."""
        place, targets = calling_place(), _targets(to)
        names, stranger = tuple(map(str, targets)), _first_stranger(targets, self)
        at = len(self.moves)
        while at and self.moves[at - 1].last and not last:
            at -= 1
        scope = compensate.name if isinstance(compensate, State) else compensate
        other = _first_stranger((compensate,), self)
        made = Move(source, event, names, when, do, place, reenter, stranger, delay, last, scope, other)
        self.moves.insert(at, made)

    @property
    def works(self) -> list[Step[C, Any]]:
        """The steps and their compensations: all that has a name, and is done by the engine."""
        return [*self.steps, *(one for step in self.steps for one in step.compensations)]

    @property
    def read_topics(self) -> tuple[Topic, ...]:
        """The topics with their settings."""
        return tuple(topic if isinstance(topic, Topic) else Topic(topic) for topic in self.topics)


def _targets(to: Any) -> tuple[State[Any] | str, ...]:
    if to is None:
        return ()
    # Whatever else it is: validation says what is wrong with it.
    return tuple(to) if isinstance(to, list | tuple) and to else (to,)


def _fields(given: Any) -> tuple[str, ...]:
    # Whatever else it is: validation says what is wrong with it.
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _tags(given: Any) -> tuple[str, ...]:
    # Whatever else it is: validation says what is wrong with it.
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _first_stranger(targets: Sequence[Any], pipeline: Pipeline[Any]) -> str | None:
    others = (one.pipeline for one in targets if isinstance(one, State) and one.pipeline is not pipeline)
    return next((one.name for one in others), None)
