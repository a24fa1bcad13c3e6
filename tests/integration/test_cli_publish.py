"""``pointsman publish`` where not all is published: what it says, and that it can be published again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time

import orjson
import pytest

from tests.cli import READY_SECONDS, Done, pointsman, started
from tests.kafka_reading import read_all
from tests.services import Kafka, TopicFactory

SOURCE = re.compile(r"--source (stdin:\S+), events that are there already are taken once\.")


def lines(count: int) -> str:
    return "".join(f"{json.dumps({'type': 'order.placed', 'n': number})}\n" for number in range(count))


async def arrived(kafka: Kafka, topic: str, count: int) -> list[tuple[str, str]]:
    """Source and id of each event, once there are so many."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        found = [orjson.loads(record.value or b"") for record in await read_all(kafka.bootstrap, topic)]
        if len(found) >= count:
            return [(one["source"], one["id"]) for one in found]
        assert time.monotonic() < deadline, found


def source_said(done: Done) -> str:
    found = SOURCE.search(done.err)
    assert found is not None, done.err
    return found[1]


@pytest.mark.parametrize(
    ("number", "file"), [(signal.SIGINT, "-"), (signal.SIGTERM, "-"), (signal.SIGINT, "/dev/stdin")]
)
async def test_publishing_that_is_interrupted_says_how_many_were_confirmed_and_goes_on_where_it_was(
    kafka: Kafka, topic: TopicFactory, number: signal.Signals, file: str
) -> None:
    name, on = await topic("orders"), {"KAFKA": kafka.bootstrap}
    reading, writing = os.pipe()
    try:
        with started("publish", name, file, on=on, stdin=reading) as publishing:
            os.write(writing, lines(3).encode())
            await arrived(kafka, name, 3)
            publishing.process.send_signal(number)
            done = await asyncio.to_thread(publishing.end)
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.code, done.out) == (130, f"3 events confirmed on {name}, 0 rows refused.\n"), done.err
    assert "Interrupted before the end" in done.err
    assert "not known" not in done.err
    again = pointsman("publish", name, "-", "--source", source_said(done), input=lines(5), on=on)
    assert (again.code, again.err) == (0, "")
    found = await arrived(kafka, name, 8)
    assert (len(found), len(set(found))) == (8, 5)


async def test_rows_that_were_refused_can_be_mended_and_published_with_the_others(
    kafka: Kafka, topic: TopicFactory
) -> None:
    name, on = await topic("orders"), {"KAFKA": kafka.bootstrap}
    done = pointsman("publish", name, "-", input=lines(2) + "nonsense\n", on=on)
    assert done.code == 1
    source = source_said(done)
    assert pointsman("publish", name, "-", "--source", source, input=lines(3), on=on).code == 0
    found = await arrived(kafka, name, 5)
    assert (len(found), len(set(found))) == (5, 3)


async def test_records_are_published_as_they_are(kafka: Kafka, topic: TopicFactory) -> None:
    name, on = await topic("orders"), {"KAFKA": kafka.bootstrap}
    records: list[dict[str, object]] = [
        {"value": {"op": "c"}, "key": {"id": 1}, "headers": {"type": "row", "none": None}},
        {"key": {"id": 1}},
        {"value": "no JSON", "key": "k"},
    ]
    given = "".join(f"{json.dumps(one)}\n" for one in records)
    done = pointsman("publish", name, "-", "--raw", input=given, on=on)
    assert (done.code, done.out, done.err) == (0, f"3 records confirmed on {name}, 0 rows refused.\n", "")
    found = await read_all(kafka.bootstrap, name)
    assert sorted((one.key, one.value or b"", tuple(one.headers)) for one in found) == [
        (b"k", b"no JSON", ()),
        (b'{"id":1}', b"", ()),
        (b'{"id":1}', b'{"op":"c"}', (("type", b"row"), ("none", None))),
    ]
    assert None in [one.value for one in found]
    refused = pointsman("publish", name, "-", "--raw", "--key", "id", input=given, on=on)
    assert refused.code == 2
    assert "--raw takes records as they are" in refused.err
