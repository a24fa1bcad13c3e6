"""A relay whose two books do not fit stops, says so, and goes on once a person has decided."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from connectors.kafka.settings import KafkaSettings
from connectors.kafka.sink_progress import progress_topic
from engine import outbox
from engine.errors import RefusedError, UsageError
from engine.outbox import OutRecord, encode
from engine.relay import Relay, RelayLimits, RelayStatus, relay_accept, relay_status
from tests.contract.sink_worlds import read_committed
from tests.outbox import DEADLINE_SECONDS, running, within_deadline
from tests.services import Database, Kafka, TopicFactory

QUICK = RelayLimits(poll_seconds=0.1, clean_seconds=0.1, halt_seconds=0.1)
Admin: Any = AIOKafkaAdminClient


class Lane:
    """A namespace with an outbox, a topic, and a relay that is started anew for each step."""

    def __init__(self, database: Database, kafka: Kafka, topic: str) -> None:
        self.namespace = f"relay-{uuid.uuid4().hex[:10]}"
        self.topic = topic
        self._database = database
        self._kafka = KafkaSettings(kafka.bootstrap)
        self._written = 0

    async def execute(self, sql: str, *arguments: object) -> None:
        connection = await asyncpg.connect(self._database.owner_dsn)
        await connection.execute(sql, *arguments)
        await connection.close()

    async def put(self, number: int) -> None:
        """Commit transactions of one record each, with numbers as values."""
        connection = await asyncpg.connect(self._database.engine_dsn)
        lane = await outbox.lane_for(connection, self.namespace, 0)
        for _ in range(number):
            self._written += 1
            record = OutRecord(self.topic, b"k", b"%d" % self._written, (), 0)
            await outbox.put(connection, lane, encode([record]))
        await connection.close()

    def relay(self) -> Relay:
        return Relay(self._database.engine_dsn, self._kafka, self.namespace, limits=QUICK)

    async def publish_all(self) -> None:
        """Relay until all is published, and all rows but the last are deleted."""
        async with running(self.relay()) as relay, asyncio.timeout(DEADLINE_SECONDS):
            await relay.drained((await self.status()).ticket)

    async def refusal(self) -> str:
        """Why a relay does not go on."""
        async with running(self.relay()) as relay:
            await within_deadline(lambda: relay.halted)
            with pytest.raises(RefusedError) as raised:
                await relay.drained(1_000_000)
            assert str(raised.value) == relay.halted
        status = await self.status()
        assert not status.healthy
        assert status.reason == str(raised.value)
        return status.reason

    async def status(self) -> RelayStatus:
        return await relay_status(self._database.reader_dsn, self._kafka, self.namespace)

    async def accept(self, **options: Any) -> int:
        accepted = await relay_accept(
            self._database.engine_dsn, self._kafka, self.namespace, reason="a test", who="me", **options
        )
        return accepted.resumes_after

    async def values(self) -> list[int]:
        (found,) = await read_committed(self._kafka.bootstrap, self.topic)
        return [int(record.value or b"") for record in found]

    async def decisions(self) -> list[tuple[int, int, str, str]]:
        connection = await asyncpg.connect(self._database.reader_dsn)
        rows = await connection.fetch(
            "select progress, ticket, who, why from pointsman.relay_decisions order by id"
        )
        await connection.close()
        return [tuple(row) for row in rows]

    async def forget_progress(self) -> None:
        admin = Admin(bootstrap_servers=self._kafka.bootstrap)
        await admin.start()
        await admin.delete_topics([progress_topic(self.namespace)])
        await within_deadline(lambda: self._is_gone(admin))
        await admin.close()

    async def _is_gone(self, admin: Any) -> bool:
        return progress_topic(self.namespace) not in await admin.list_topics()


@pytest.fixture
async def lane(database: Database, kafka: Kafka, topic: TopicFactory) -> Lane:
    return Lane(database, kafka, await topic())


async def test_a_healthy_relay_says_so_and_has_nothing_to_decide(lane: Lane) -> None:
    await lane.put(3)
    assert (await lane.status()).depth == 3
    await lane.publish_all()
    status = await lane.status()
    assert (status.healthy, status.reason, status.progress, status.ticket, status.deleted, status.depth) == (
        True,
        "",
        3,
        3,
        2,
        0,
    )
    assert status.store == status.progress_store
    with pytest.raises(UsageError, match="has not stopped"):
        await lane.accept()


async def test_where_no_engine_ever_ran_the_status_says_so(lane: Lane) -> None:
    with pytest.raises(RefusedError, match="no engine ran with it"):
        await lane.status()


async def test_a_database_restored_to_an_older_state_stops_the_relay(lane: Lane) -> None:
    await lane.put(5)
    await lane.publish_all()
    await lane.put(2)
    await lane.publish_all()
    # As after row 3: rows 1 and 2 deleted, row 3 the last one there. Rows 4 to 7 were lost.
    await lane.execute("delete from pointsman.outbox")
    await lane.execute(
        "insert into pointsman.outbox select id, 3, $1 from pointsman.lanes", encode(_record(lane, 3))
    )
    await lane.execute("update pointsman.lanes set ticket = 3, deleted = 2")
    assert "has only written 3" in await lane.refusal()
    await lane.put(2)
    assert "has only written 5" in await lane.refusal()
    assert await lane.accept() == 3
    await lane.publish_all()
    assert await lane.values() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert await lane.decisions() == [(3, 5, "me", "a test")]


async def test_tickets_that_were_given_out_twice_stop_the_relay_though_the_numbers_fit(lane: Lane) -> None:
    await lane.put(4)
    await lane.publish_all()
    # As after row 2 with none deleted, and five transactions since.
    await lane.execute("delete from pointsman.outbox")
    await lane.execute("update pointsman.lanes set ticket = 0, deleted = 0")
    await lane.put(6)
    assert "has another content now" in await lane.refusal()
    assert await lane.accept() == 0
    await lane.publish_all()
    assert await lane.values() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


async def test_a_kafka_without_its_progress_stops_the_relay(lane: Lane) -> None:
    await lane.put(5)
    await lane.publish_all()
    await lane.forget_progress()
    await lane.put(2)
    assert "no progress record" in await lane.refusal()
    assert await lane.accept() == 5
    await lane.publish_all()
    assert await lane.values() == [1, 2, 3, 4, 5, 6, 7]


async def test_another_database_at_the_same_kafka_stops_its_relay(lane: Lane) -> None:
    await lane.put(3)
    await lane.publish_all()
    await lane.execute("update pointsman.store set id = gen_random_uuid()")
    await lane.put(1)
    assert "belongs to the store" in await lane.refusal()
    assert await lane.accept() == 3
    await lane.publish_all()
    assert await lane.values() == [1, 2, 3, 4]


async def test_rows_that_are_missing_stop_the_relay_where_they_are_missing(lane: Lane) -> None:
    await lane.put(6)
    await lane.execute("delete from pointsman.outbox where sequence in (3, 4)")
    assert "rows 3 to 4 of the outbox are missing" in await lane.refusal()
    assert await lane.values() == [1, 2]
    assert await lane.accept() == 4
    await lane.publish_all()
    assert await lane.values() == [1, 2, 5, 6]


async def test_a_person_who_knows_better_names_the_row(lane: Lane) -> None:
    await lane.put(4)
    await lane.publish_all()
    await lane.forget_progress()
    await lane.put(4)
    with pytest.raises(UsageError, match="deleted up to 3 and written up to 8"):
        await lane.accept(after=2)
    with pytest.raises(UsageError, match="deleted up to 3 and written up to 8"):
        await lane.accept(after=9)
    assert await lane.accept(after=6) == 6
    await lane.publish_all()
    assert await lane.values() == [1, 2, 3, 4, 7, 8]


async def test_a_relay_that_waits_goes_on_by_itself_once_it_is_decided(lane: Lane) -> None:
    await lane.put(3)
    await lane.publish_all()
    await lane.forget_progress()
    await lane.put(1)
    async with running(lane.relay()) as relay:
        await within_deadline(lambda: relay.halted)
        await lane.accept()
        await within_deadline(lambda: relay.halted is None and relay.confirmed == 4)
    assert await lane.values() == [1, 2, 3, 4]


async def test_a_decision_needs_a_reason(lane: Lane, database: Database, kafka: Kafka) -> None:
    with pytest.raises(UsageError, match="Say why"):
        await relay_accept(
            database.engine_dsn, KafkaSettings(kafka.bootstrap), lane.namespace, reason=" ", who="me"
        )


def _record(lane: Lane, number: int) -> list[OutRecord]:
    return [OutRecord(lane.topic, b"k", b"%d" % number, (), 0)]
