"""A transactional producer that feeds a plan over time, in small transactions, and aborts some of them.

librdkafka's producer, so that nothing here shares code with the engine. Where the outcome of a transaction is
not known, it is sent again: then the topics have it twice, and the oracle, which reads the topics, knows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tests.chaos.script import EVENT_HEADERS, Plan, Send, ghost, make_plan

TRANSACTION_RECORDS_MAX = 12
ABORTED_SHARE = 0.2
PATIENCE_SECONDS = 90.0
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """What was sent."""

    committed: int = 0
    aborted: int = 0
    records: int = 0
    ghosts: int = 0
    again: int = 0


@dataclass(slots=True)
class Feeder:
    """Sends a plan; ``run`` blocks and is meant for a thread of its own."""

    bootstrap: str
    suffix: str
    seed: int
    counts: Counts = field(default_factory=Counts)
    enough: threading.Event = field(default_factory=threading.Event)
    """Set when no further plan need be begun."""
    stopping: threading.Event = field(default_factory=threading.Event)
    plans: list[Plan] = field(default_factory=list)
    _producer: Any = None

    def run(self, runs: int, seconds: float) -> None:
        """Send a plan, each record not before its time, and smaller ones after it until it is enough."""
        random = Random(self.seed)
        while not self.plans or not (self.enough.is_set() or self.stopping.is_set()):
            part = 1 if not self.plans else 8
            self.plans.append(make_plan(self.seed, runs // part, seconds / part, f"p{len(self.plans)}-"))
            self._send_plan(random, self.plans[-1])

    def _send_plan(self, random: Random, plan: Plan) -> None:
        began = time.monotonic()
        at = 0
        while at < len(plan.sends) and not self.stopping.is_set():
            size = random.randint(1, TRANSACTION_RECORDS_MAX)
            now = time.monotonic() - began
            batch = [one for one in plan.sends[at : at + size] if one.at <= now]
            if not batch:
                self.stopping.wait(max(0.001, plan.sends[at].at - now))
                continue
            while batch[-1].with_next:
                batch.append(plan.sends[at + len(batch)])
            if random.random() < ABORTED_SHARE:
                self._abort(random, plan, batch)
            self.send(batch)
            at += len(batch)

    def send(self, batch: Sequence[Send]) -> None:
        """One committed transaction."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._try(batch, commit=True):
            assert time.monotonic() < deadline, f"no transaction within {PATIENCE_SECONDS:.0f} s"
            self.counts.again += 1
        self.counts.committed += 1
        self.counts.records += len(batch)

    def _abort(self, random: Random, plan: Plan, batch: Sequence[Send]) -> None:
        """An aborted transaction with events that never were, and perhaps some that will be."""
        ghosts = [ghost(random, plan.keys) for _ in range(random.randint(1, 3))]
        topic = batch[0].topic
        sends = [Send(0.0, topic, key, value, EVENT_HEADERS) for key, value in ghosts]
        sends += batch[: random.randint(0, len(batch))]
        if self._try(sends, commit=False):
            self.counts.aborted += 1
            self.counts.ghosts += len(ghosts)

    def _try(self, batch: Sequence[Send], *, commit: bool) -> bool:
        try:
            producer = self._begin()
            for one in batch:
                producer.produce(
                    one.topic + self.suffix, key=one.key, value=one.value, headers=list(one.headers)
                )
            producer.flush(PATIENCE_SECONDS)
            _patiently(producer.commit_transaction if commit else producer.abort_transaction)
        except KafkaException as error:
            self._recover(error)
            return False
        return True

    def _begin(self) -> Any:
        if self._producer is None:
            producer = Producer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "transactional.id": f"chaos-feed{self.suffix}",
                    "transaction.timeout.ms": 20_000,
                    "linger.ms": 0,
                    "log_level": 0,
                },
                logger=logging.getLogger("librdkafka"),
            )
            _patiently(producer.init_transactions)
            self._producer = producer
        self._producer.begin_transaction()
        return self._producer

    def _recover(self, failure: KafkaException) -> None:
        error: KafkaError = failure.args[0]
        log.info("the feed's transaction failed: %s", error)
        producer = self._producer
        if producer is not None and error.txn_requires_abort():
            try:
                _patiently(producer.abort_transaction)
            except KafkaException:
                self._producer = None
        else:
            # Its successor ends what it has left open.
            self._producer = None


def _patiently(call: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            call(10.0)
        except KafkaException as failure:
            if not failure.args[0].retriable() or time.monotonic() > deadline:
                raise
        else:
            return
