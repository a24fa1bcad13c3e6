"""The machines in the pure core: each event is an occurrence, each outcome the next run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, cycle, repeat

from benchmarks.machines.player import INNERMOST, NESTED_EVENTS, Player, ring
from benchmarks.processes import MeasuringError
from statemachines import Context, Event, Pipeline
from statemachines.events import Envelope
from statemachines.interpreter import step
from statemachines.machine import compile_pipeline
from statemachines.occurrence import Occurrence
from statemachines.outcome import Moved
from statemachines.run import DIGEST_BYTES, RECENT_DIGESTS_MAX, Run, Status, remember

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "order-1"
DIGESTS = 100 * RECENT_DIGESTS_MAX
_new = tuple.__new__


class Order(Context):
    """A context of a usual size."""

    order_id: str = KEY
    customer: str = "c-4711"
    amount: int = 4_200
    moves: int = 0


class Placed(Event, type="order.placed"):
    """Starts a run."""


def begin(event: Placed) -> Order:
    del event
    return Order()


def note(order: Order, event: Event) -> None:
    del event
    order.moves += 1


def flat(*, writing: bool) -> Player:
    flow = _pipeline("flat")
    kinds = _kinds([event for event, _, _ in ring()])
    states = {source: flow.state(source, initial=not at) for at, (_, source, _) in enumerate(ring())}
    for event, source, target in ring():
        states[source].on(kinds[event], to=target, do=note if writing else None)
    return Ours(flow, kinds)


def nested(*, writing: bool) -> Player:
    flow, kinds = _pipeline("nested"), _kinds(NESTED_EVENTS)
    idle, active = flow.state("idle", initial=True), flow.state("active")
    payment, parcel = active.region("payment"), active.region("parcel")
    unpaid = payment.state("unpaid", initial=True)
    paid, booked = payment.state("paid"), payment.state("booked")
    unpacked = parcel.state("unpacked", initial=True)
    boxed, sent = parcel.state("boxed"), parcel.state("sent")
    moves = [
        (idle, "begin", active),
        (active, "stop", idle),
        (unpaid, "pay", paid),
        (paid, "book", booked),
        (booked, "renew", unpaid),
        (unpaid, "cancel", idle),
        (unpacked, "box", boxed),
        (boxed, "ship", sent),
        (sent, "renew", unpacked),
    ]
    for source, event, target in moves:
        source.on(kinds[event], to=target, do=note if writing else None)
    return Ours(flow, kinds)


class Ours:
    """A run, and what makes the next one of it."""

    def __init__(self, flow: Pipeline[Order], kinds: Mapping[str, type[Event]]) -> None:
        self._machine = compile_pipeline(flow, namespace="benchmark")
        self._digests = _digests()
        digest = next(self._digests)
        outcome = step(self._machine, None, Occurrence(_envelope("placed"), KEY, digest, NOW, Placed()))
        if not isinstance(outcome, Moved) or outcome.context is None:
            raise MeasuringError(f"no run was started: {outcome}")
        place, context, status = outcome.configuration, outcome.context, int(Status.RUNNING)
        self._run = Run(1, KEY, 0, 1, status, place, context, digest, b"", 1, 0, 0, NOW, NOW)
        self._inputs = {name: (_envelope(name), kind()) for name, kind in kinds.items()}

    def play(self, events: Sequence[str], times: int) -> None:
        inputs = [self._inputs[name] for name in events]
        machine, run, digests = self._machine, self._run, self._digests
        arriving = chain.from_iterable(repeat(inputs, times))
        for (envelope, event), digest in zip(arriving, digests, strict=False):
            # Tuples made past their classes, as the engine makes them.
            occurrence: Occurrence = _new(
                Occurrence, (envelope, KEY, digest, NOW, event, "", False, None, False, None)
            )
            outcome = step(machine, run, occurrence)
            if type(outcome) is not Moved:
                raise MeasuringError(f"{envelope.type} was not taken in {run.configuration}: {outcome}")
            _, place, status, context, _, _, _ = outcome
            if context is None:
                context = run.context
            recent = remember(run.recent, digest)
            run = _new(
                Run,
                (
                    1,
                    KEY,
                    0,
                    run.sequence + 1,
                    status,
                    place,
                    context,
                    recent,
                    b"",
                    1,
                    0,
                    0,
                    NOW,
                    NOW,
                    b"",
                    (),
                ),
            )
        self._run = run

    @property
    def states(self) -> frozenset[str]:
        return INNERMOST.intersection(self._run.states)

    @property
    def moves(self) -> int:
        return Order.model_validate_json(self._run.context).moves


def _pipeline(name: str) -> Pipeline[Order]:
    flow = Pipeline(name, Order, topics=["orders"])
    flow.start(Placed, begin)
    return flow


def _kinds(names: Sequence[str]) -> dict[str, type[Event]]:
    return {name: Event.named(f"order.{name}") for name in dict.fromkeys(names)}


def _envelope(name: str) -> Envelope:
    return Envelope(id="1", source="benchmark", type=f"order.{name}", key=KEY, time=NOW)


def _digests() -> Iterator[bytes]:
    """Without end, and far more than a run remembers before one comes again: hashing ids is the engine's."""
    return cycle([os.urandom(DIGEST_BYTES) for _ in range(DIGESTS)])
