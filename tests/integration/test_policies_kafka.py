"""What policies make of events, on real Kafka and Postgres: each is told by its id, with the policy that decided."""

from __future__ import annotations

import re
from typing import Any

from connectors.kafka.settings import KafkaSettings
from engine.reading import explain, replay, verify
from engine.store.connecting import Connection
from statemachines.definition import Pipeline, Topic
from statemachines.machine import compile_pipeline
from tests.chaos.slots import until
from tests.feeding import event
from tests.files import files
from tests.services import Database, Kafka, TopicFactory
from tests.shop import shop
from tests.stuck import publish
from tests.timed import World

TOLD = {
    ("no run", "strict"): ("dead-lettered", "dead_letter (no_run of the pipeline)"),
    ("no run", "lenient"): ("ignored", "ignore (no_run of the pipeline)"),
    ("no run", "patient"): ("applied", "defer for 1 d, then dead_letter (no_run of the pipeline)"),
    ("placed", "strict"): ("started", None),
    ("placed", "lenient"): ("started", None),
    ("placed", "patient"): ("started", None),
    ("unexpected", "strict"): ("dead-lettered", "dead_letter (unexpected of the pipeline)"),
    ("unexpected", "lenient"): ("ignored", "ignore (unexpected of the pipeline)"),
    ("unexpected", "patient"): ("applied", "defer for 1 d, then dead_letter (unexpected of the pipeline)"),
    ("paid", "strict"): ("applied", None),
    ("paid", "lenient"): ("applied", None),
    ("paid", "patient"): ("applied", None),
    ("shipped", "strict"): ("applied", None),
    ("shipped", "lenient"): ("applied", None),
    # Its run had ended, by the one that had been too early; so it waits for the end of the next.
    ("shipped", "patient"): ("deferred", "defer for 1 d, then dead_letter (no_run of the pipeline)"),
    ("closed", "strict"): ("late", "dead_letter (closed of the pipeline)"),
    ("closed", "lenient"): ("ignored", "ignore (closed of the pipeline)"),
    ("closed", "patient"): ("applied", "defer for 1 d, then dead_letter (no_run of the pipeline)"),
    ("again", "strict"): ("late", "dead_letter (closed of the pipeline)"),
    ("again", "lenient"): ("ignored", "ignore (closed of the pipeline)"),
    ("again", "patient"): ("started", None),
    ("at last", "strict"): ("started", None),
    ("at last", "lenient"): ("started", None),
    ("at last", "patient"): ("started", None),
    ("first", "file"): ("started", None),
    ("stale", "file"): ("stale", "order_by=version"),
    ("line 2", "file"): ("applied", "order_by=line, contiguous, gap=3 min, then ignore"),
    ("line 1", "file"): ("applied", None),
    ("by a", "file"): ("applied", None),
    ("by a again", "file"): ("duplicate", "duplicate_by=by, duplicate_for=10 min"),
    ("stored", "file"): ("applied", None),
    ("stored again", "file"): ("duplicate", "duplicate_by=file, object"),
    ("end", "file"): ("applied", None),
    ("behind the end", "file"): ("late", "dead_letter (closed of the pipeline)"),
}
"""What becomes of an event, by its id and the pipeline, and by which policy."""
DECIDED = re.compile(r"The policy that decided: (.+?)\.(?: |$)")


def told(kind: str, id: str, **data: Any) -> bytes:
    value = event(kind, data, id=id).value
    assert value is not None
    return value


def order(kind: str, id: str, order_id: str = "o1", **data: Any) -> bytes:
    return told(f"order.{kind}", id, order_id=order_id, **data)


def file(kind: str, id: str, **data: Any) -> bytes:
    return told(f"file.{kind}", id, file="f", **data)


async def test_an_event_is_told_by_its_id_whatever_policies_make_of_it(
    database: Database, reader: Connection, kafka: Kafka, topic: TopicFactory
) -> None:
    world = World(database.engine_dsn, database.owner_dsn, KafkaSettings(kafka.bootstrap), database.name)
    orders, others = await topic("orders"), await topic("files")
    pipelines: list[Pipeline[Any]] = [
        shop(name="strict", topic=Topic(orders)),
        shop(name="lenient", topic=Topic(orders), unexpected="ignore", no_run="ignore", closed="ignore"),
        shop(name="patient", topic=Topic(orders), unexpected="defer", no_run="defer", closed="restart"),
        files(others),
    ]
    fed = {
        orders: [
            order("noted", "no run", "o2"),
            order("placed", "placed", amount=5),
            order("shipped", "unexpected"),
            order("paid", "paid", amount=5),
            order("shipped", "shipped"),
            order("noted", "closed"),
            order("placed", "again", amount=7),
            order("placed", "at last", "o2", amount=7),
        ],
        others: [
            file("seen", "first", version=1),
            file("seen", "stale", version=0),
            file("line", "line 2", line=2),
            file("line", "line 1", line=1),
            file("mentioned", "by a", by="a"),
            file("mentioned", "by a again", by="a"),
            file("stored", "stored", object="x"),
            file("stored", "stored again", object="x"),
            file("closed", "end"),
            file("line", "behind the end", line=3),
        ],
    }
    for name, values in fed.items():
        await publish(kafka.bootstrap, name, *values)

    async def all_are_applied() -> bool:
        return {*await world.ask("select topic, position from pointsman.positions where position > 0")} == {
            (name, len(values)) for name, values in fed.items()
        }

    async with world.engine(*pipelines):
        await until(all_are_applied, 120, "the ends of the topics")

    told_of: dict[tuple[str, str | None], tuple[str, str | None]] = {}
    for event_id in {one for one, _ in TOLD}:
        for answer in (await explain(reader, world.namespace, event_id=event_id)).answers:
            said = " ".join(one.sentence for one in (*answer.earlier, answer.current))
            policy = DECIDED.search(said)
            told_of[event_id, answer.pipeline] = answer.current.disposition, policy and policy[1]
    assert told_of == TOLD
    assert (await verify(reader, world.namespace)).is_clean
    machines = [compile_pipeline(one, namespace=world.namespace) for one in pipelines]
    assert (await replay(reader, world.namespace, machines)).is_equal
