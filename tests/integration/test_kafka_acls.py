"""What Kafka has to allow: the road with exactly that, and what is said where any of it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka.settings import KafkaSettings
from connectors.publisher import Publisher, PublishError
from engine.assembly import EngineSettings
from engine.limits import EngineLimits
from engine.running import Ending, ExitReason, Running, run
from engine.telling_lag import lag_group
from statemachines import Context, Event, Pipeline, Publish
from statemachines.machine import Machine, compile_pipeline
from tests.cli import pointsman
from tests.secured_kafka import PASSWORD, Allowed, SecuredKafka, secured_kafka
from tests.services import Database, Topics, _admin

PAGE = Path(__file__).parents[2] / "engine" / "operating.md"
SAID_SECONDS = 40.0
EVENTS = (
    '{"type": "order.placed", "order_id": "a"}\n{"type": "order.paid", "order_id": "a"}\n'
    '{"type": "order.paid", "order_id": "nobody"}\n'
)
OPEN, OUT, LETTERS = "acl-orders", "acl-out", "acl-orders.dead-letters"


class Placed(Event, type="order.placed", key="order_id"):
    order_id: str


class Paid(Event, type="order.paid", key="order_id"):
    order_id: str


class Order(Context):
    order_id: str


def begin(event: Placed) -> Order:
    return Order(order_id=event.order_id)


def tell(order: Order, event: Paid) -> Publish:
    return Publish(OUT, event)


def machine() -> Machine:
    """Publishes to a topic, and makes a dead letter."""
    flow = Pipeline("order", Order, topics=[OPEN])
    placed, paid = flow.state("placed", initial=True), flow.state("paid", final=True)
    flow.start(Placed, begin)
    placed.on(Paid, to=paid, do=tell)
    return compile_pipeline(flow)


def engine_rights(namespace: str) -> dict[str, Allowed]:
    """All that an engine and its relay need, by the row of the PAGE's table."""
    own = f"pointsman.{namespace}"
    return {
        "each topic that is read": Allowed("READ", "TOPIC", OPEN),
        "each topic that pipelines publish to": Allowed("WRITE", "TOPIC", OUT),
        "each dead-letter topic": Allowed("WRITE", "TOPIC", LETTERS),
        "pointsman.<namespace>.homes": Allowed("READ", "TOPIC", f"{own}.homes"),
        "pointsman.<namespace>.relay, read": Allowed("READ", "TOPIC", f"{own}.relay"),
        "pointsman.<namespace>.relay, written": Allowed("WRITE", "TOPIC", f"{own}.relay"),
        "group pointsman.<namespace>": Allowed("READ", "GROUP", own),
        "group pointsman.<namespace>.lag": Allowed("READ", "GROUP", lag_group(own)),
        "transactional ids": Allowed("WRITE", "TRANSACTIONAL_ID", f"{own}.", prefixed=True),
    }


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredKafka]:
    with secured_kafka() as server:
        yield server


@pytest.fixture
async def namespace(secured: SecuredKafka, database: Database) -> AsyncIterator[str]:
    """With all topics that an engine would make, so that it need not."""
    own = f"pointsman.{database.name}"
    names = {OPEN: 1, OUT: 1, LETTERS: 1, f"{own}.homes": 16, f"{own}.relay": 1}
    await make(secured, names, compacted=f"{own}.relay")
    secured.allow("publisher", [Allowed("WRITE", "TOPIC", OPEN)])
    sent = pointsman("publish", OPEN, "-", "--key", "order_id", input=EVENTS, on=secured.user("publisher"))
    assert sent.code == 0, sent.err
    yield database.name
    secured.allow("engine", [])
    async with _admin({"bootstrap_servers": secured.bootstrap}) as admin:
        await admin.delete_topics([*names])


async def make(secured: SecuredKafka, names: dict[str, int], *, compacted: str = "") -> None:
    from aiokafka.admin import NewTopic  # noqa: PLC0415 - untyped

    new: Any = NewTopic
    compact = {"cleanup.policy": "compact"}
    async with _admin({"bootstrap_servers": secured.bootstrap}) as admin:
        await admin.create_topics(
            [
                new(name, count, 1, topic_configs=compact if name == compacted else {})
                for name, count in names.items()
            ]
        )


class Heard(logging.Handler):
    """Waits for a text in the log."""

    def __init__(self, text: str) -> None:
        super().__init__(logging.WARNING)
        self._text = text
        self.said = asyncio.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        if self._text in self.lines[-1]:
            self.said.set()


@contextlib.contextmanager
def hearing(text: str) -> Iterator[Heard]:
    heard = Heard(text)
    logging.getLogger().addHandler(heard)
    try:
        yield heard
    finally:
        logging.getLogger().removeHandler(heard)


def settings_of(secured: SecuredKafka, database: Database, user: str = "engine") -> EngineSettings:
    kafka = KafkaSettings(
        secured.by_password, security_protocol="SASL_PLAINTEXT", username=user, password=PASSWORD
    )
    return EngineSettings(
        database.engine_dsn, kafka, namespace=database.name, limits=EngineLimits(lag_tell_seconds=0.05)
    )


async def is_said(secured: SecuredKafka, database: Database, text: str) -> None:
    """An engine says this, as it refuses to start or as it goes on."""
    running: list[Running] = []
    with hearing(text) as heard:
        engine = asyncio.create_task(run(settings_of(secured, database), [machine()], began=running.append))
        said = asyncio.create_task(heard.said.wait())
        done, _ = await asyncio.wait(
            {engine, said}, timeout=SAID_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        assert done, heard.lines
        if engine not in done:
            said.cancel()
            if running:
                running[0].stop()
            else:
                engine.cancel()
            await asyncio.wait({engine}, timeout=SAID_SECONDS)
            return
        said.cancel()
        assert text in str(engine.exception()), (engine, heard.lines)


async def test_an_engine_does_all_with_what_the_table_has(
    secured: SecuredKafka, namespace: str, database: Database, tmp_path: Path
) -> None:
    secured.allow("engine", [*engine_rights(namespace).values()])
    ended = await run(settings_of(secured, database), [machine()], until_idle=True)
    assert ended == ExitReason(Ending.IDLE)
    on = {**secured.user("engine"), "POSTGRES": database.engine_dsn, "NAMESPACE": database.name}
    [letter] = pointsman("dead-letters", "list", "--json", on=on).json
    assert letter["publishing"] == "published"
    status = pointsman("relay", "status", "--json", on=on)
    assert (status.code, status.json["depth"]) == (0, 0), status
    looked_at = pointsman("doctor", "--json", on=on)
    assert looked_at.out, looked_at.err[-3000:]
    checks = looked_at.json["checks"]
    assert [one for one in checks if one["verdict"] == "fail"] == []
    secured.allow("onlooker", [Allowed("READ", "TOPIC", f"pointsman.{namespace}.relay")])
    looked = {**secured.user("onlooker"), "POSTGRES": database.reader_dsn, "NAMESPACE": database.name}
    assert pointsman("relay", "status", on=looked).code == 0
    for command in (("runs",), ("verify",), ("history", "order", "a"), ("positions", "list")):
        assert pointsman(*command, on=looked).code == 0, command


SENTENCES = {
    "each topic that is read": f"Allow READ on the topic {OPEN}.",
    "each topic that pipelines publish to": f"Allow WRITE on the topic {OUT}.",
    "each dead-letter topic": f"Allow WRITE on the topic {LETTERS}.",
    "pointsman.<namespace>.homes": "Allow READ on the topic pointsman.{namespace}.homes.",
    "pointsman.<namespace>.relay, read": "Allow READ on the topic pointsman.{namespace}.relay.",
    "pointsman.<namespace>.relay, written": "Allow WRITE on the topic pointsman.{namespace}.relay.",
    "group pointsman.<namespace>": "Allow READ on the group pointsman.{namespace}.",
    "group pointsman.<namespace>.lag": "Allow READ on the group pointsman.{namespace}.lag.",
    "transactional ids": "Allow WRITE on the transactional id pointsman.{namespace}.0.",
}


@pytest.mark.parametrize("missing", [*SENTENCES])
async def test_what_is_missing_is_named_with_what_it_is_for(
    secured: SecuredKafka, namespace: str, database: Database, missing: str
) -> None:
    rights = engine_rights(namespace)
    taken = rights.pop(missing)
    secured.allow("engine", [*rights.values()])
    sentence = SENTENCES[missing].format(namespace=namespace)
    await is_said(secured, database, sentence.removesuffix(".") if taken.prefixed else sentence)


@pytest.mark.parametrize("missing", ["each topic that is read", "each topic that pipelines publish to"])
async def test_to_see_a_topic_is_not_enough(
    secured: SecuredKafka, namespace: str, database: Database, missing: str
) -> None:
    rights = engine_rights(namespace)
    taken = rights.pop(missing)
    secured.allow("engine", [*rights.values(), taken._replace(operation="DESCRIBE")])
    await is_said(secured, database, SENTENCES[missing])


@pytest.mark.parametrize("gone", ["homes", "relay", "dead-letters"])
async def test_topics_that_are_missing_are_made_where_that_is_allowed(
    secured: SecuredKafka, namespace: str, database: Database, gone: str
) -> None:
    topic = LETTERS if gone == "dead-letters" else f"pointsman.{namespace}.{gone}"
    async with _admin({"bootstrap_servers": secured.bootstrap}) as admin:
        await admin.delete_topics([topic])
    rights = [*engine_rights(namespace).values()]
    secured.allow("engine", rights)
    await is_said(secured, database, f"llow CREATE on the topic {topic}")
    secured.allow("engine", [*rights, Allowed("CREATE", "TOPIC", topic)])
    assert (await run(settings_of(secured, database), [machine()], until_idle=True)).ending is Ending.IDLE


async def test_doctor_tells_what_is_missing_as_far_as_kafka_says(
    secured: SecuredKafka, namespace: str, database: Database
) -> None:
    rights = engine_rights(namespace)
    kept = [rights["each dead-letter topic"], rights["pointsman.<namespace>.relay, read"]]
    seen = [Allowed("DESCRIBE", "TOPIC", OPEN), Allowed("DESCRIBE", "GROUP", f"pointsman.{namespace}")]
    secured.allow("engine", [*kept, *seen])
    file = Path(__file__)
    on = {**secured.user("engine"), "POSTGRES": database.engine_dsn, "NAMESPACE": database.name}
    done = pointsman("doctor", f"{file}:flow", "--json", on=on)
    failed = {one["name"]: one for one in done.json["checks"] if one["verdict"] == "fail"}
    own = f"pointsman.{namespace}"
    assert set(failed) == {OPEN, f"{own}.homes", f"{own}.relay", own}, failed
    assert "may not READ on the topic" in failed[OPEN]["sentence"]
    assert failed[OPEN]["cure"].endswith(f"--operation READ --topic {OPEN}")
    assert "may not WRITE on the topic" in failed[f"{own}.relay"]["sentence"]
    assert failed[own]["cure"].endswith(f"--operation READ --group {own}")
    [lag] = [one for one in done.json["checks"] if one["name"] == f"{own}.lag"]
    assert (lag["verdict"], "tools see the lag" in lag["sentence"]) == ("warn", True)
    assert done.code == 1


async def test_a_publisher_needs_to_write_and_is_told_so(secured: SecuredKafka) -> None:
    topic = await Topics(secured.bootstrap)("acl-published")
    other = await Topics(secured.bootstrap)("acl-other")
    kafka = settings_of(secured, Database("", "", "", ""), "publisher").kafka
    event = Placed(order_id="p")
    for allowed in ([], [Allowed("WRITE", "TOPIC", other)], [Allowed("DESCRIBE", "TOPIC", topic)]):
        secured.allow("publisher", allowed)
        with pytest.raises(PublishError, match="Allow WRITE"):
            async with Publisher(kafka, source="/shop", topic=topic) as publisher:
                await publisher.publish(event)
    secured.allow("publisher", [Allowed("WRITE", "TOPIC", topic)])
    async with Publisher(kafka, source="/shop", topic=topic) as publisher:
        assert (await publisher.publish(event)).topic == topic


def test_the_readme_has_each_of_them() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "`" in line]
    for row, right in engine_rights("<namespace>").items():
        named = right.name if right.name.startswith("pointsman") else row
        assert any(f"`{right.operation}`" in line and named in line for line in table), row


flow = machine().pipeline
