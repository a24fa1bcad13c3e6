"""Bad input, each kind through a running engine, real Kafka and real Postgres: it is told apart, and nobody waits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from connectors.encode import STRUCTURED_HEADERS
from connectors.kafka.queries import connect
from connectors.kafka.settings import KafkaSettings
from engine.assembly import EngineSettings
from engine.envelope import decode_headers, encode_headers
from engine.reading import explain, list_runs, replay, verify
from engine.running import Ending, run
from engine.store.connecting import Connection
from engine.store.connecting import connect as connect_postgres
from statemachines.machine import compile_pipeline
from tests.services import Database, Kafka, TopicFactory
from tests.trial import KEPT, trial

Headers = Sequence[tuple[str, bytes | None]]
Record = tuple[bytes | None, bytes | None, Headers]
"""Value, key and headers; a header's name may have bytes that are no text (``surrogateescape``)."""

TIME = 1_772_366_400_000
RECORD_BYTES_MAX = 8_000_000
CRC_AT, AFTER_CRC = 17, 21
HELD, UNHELD = "held", "running"


class Bad(NamedTuple):
    """A record on the run ``case``, and what must become of it."""

    name: str
    value: bytes | None
    became: str
    """``applied``, or the reason of its dead letter."""
    error: str = ""
    """A part of the dead letter's sentence."""
    run: str = UNHELD
    """The status of the run afterwards."""
    key: bytes | None = None
    headers: Headers = STRUCTURED_HEADERS


def ce(type: str = "noted", data: str = '{"case": "CASE"}', more: str = "", **changes: str | None) -> bytes:
    """A CloudEvent written by hand, so that it may be as no library would write it; CASE is its run."""
    attributes = {
        "specversion": '"1.0"',
        "id": '"bad-CASE"',
        "source": '"/trial"',
        "type": f'"trial.{type}"',
        "data": data,
        **changes,
    }
    pairs = [f'"{name}": {value}' for name, value in attributes.items() if value is not None]
    return ("{" + ", ".join(pairs) + more + "}").encode()


def noted(text: str = "", more: str = "") -> bytes:
    return ce(data=f'{{"case": "CASE", "text": "{text}"{more}}}')


def misbehaved(how: str, error: str) -> Bad:
    data = json.dumps({"case": "CASE", "how": how, "lines": ["came"]})
    return Bad(f"an action that {how}", ce("misbehaved", data), "action raised", error, HELD)


def binary(**changes: bytes | None) -> Headers:
    attributes = {
        "specversion": b"1.0", "id": b"bad-CASE", "source": b"/trial", "type": b"trial.noted", **changes
    }  # fmt: skip
    return [(f"ce_{name}", value) for name, value in attributes.items()]


DEEP = 100_000
BIG = "9" * 300
NO_JSON = "is not JSON"
FIVE_MB = "x" * 5_000_000

BAD = (
    Bad("a tombstone", None, "unreadable", "no value (a tombstone)", headers=()),
    Bad("a tombstone that says it is a CloudEvent", None, "unreadable", "no value (a tombstone)"),
    Bad("an empty value", b"", "unreadable", "value is empty", headers=()),
    Bad("not UTF-8", ce().replace(b"/trial", b"\xff\xfe"), "unreadable", NO_JSON),
    Bad("truncated JSON", ce()[:-9], "unreadable", NO_JSON),
    Bad("an array", b"[1, 2]", "unreadable", "an array"),
    Bad("a string", b'"text"', "unreadable", "a string", headers=()),
    Bad("null", b"null", "unreadable", "null"),
    Bad("arrays nested deep", b"[" * DEEP + b"]" * DEEP, "unreadable", NO_JSON),
    Bad("objects nested deep", b'{"a":' * DEEP + b"1" + b"}" * DEEP, "unreadable", NO_JSON),
    Bad("data nested deep", noted(more=', "deep": ' + "[" * DEEP + "]" * DEEP), "unreadable", NO_JSON),
    Bad("a 300-digit number", noted(more=f', "amount": {BIG}'), "applied"),
    Bad(
        "a 300-digit number where a count belongs",
        ce("counted", f'{{"case": "CASE", "amount": {BIG}}}'),
        "invalid data",
        "amount: ",
        HELD,
    ),
    Bad("a 300-digit number as the key", ce(data=f'{{"case": {BIG}}}'), "no key", "the field 'case'"),
    Bad("NaN", noted(more=', "amount": NaN'), "unreadable", NO_JSON),
    Bad("infinity", noted(more=', "amount": -Infinity'), "unreadable", NO_JSON),
    Bad("a number too large for a float", noted(more=', "amount": 1e999'), "unreadable", NO_JSON),
    Bad("NUL in a string", noted("a\\u0000b"), "applied"),
    Bad("a bare NUL in a string", noted("a\0b"), "unreadable", NO_JSON),
    Bad("NUL in the id", ce(id='"a\\u0000b"'), "unreadable", "id has a NUL character"),
    Bad("NUL in the key", ce(data='{"case": "a\\u0000b"}'), "no key", "the field 'case'"),
    Bad("NUL in the Kafka key", ce("touched"), "no key", "key has a NUL character", key=b"a\0b"),
    Bad("a lone surrogate in a string", noted("a\\ud800b"), "unreadable", NO_JSON),
    Bad("a lone surrogate in the id", ce(id='"a\\udfffb"'), "unreadable", NO_JSON),
    Bad("a lone surrogate in the key", ce(data='{"case": "\\ud800"}'), "unreadable", NO_JSON),
    Bad("a lone surrogate in the Kafka key", ce("touched"), "no key", "UTF-8", key=b"\xed\xa0\x80"),
    Bad("doubled keys", noted("first", ', "text": "last"'), "applied"),
    Bad("doubled attributes", ce(more=', "specversion": "0.3"'), "unreadable", "specversion is '0.3'"),
    Bad("5 MB of data", noted(FIVE_MB), "applied"),
    Bad("5 MB of data that cannot be read", FIVE_MB.encode(), "unreadable", NO_JSON),
    Bad("5 MB in an id", ce(id=f'"{FIVE_MB}"'), "unreadable", "id takes 5,000,000 bytes"),
    Bad("a key of 10 KB", ce("touched"), "no key", "key takes 10,240 bytes", key=b"k" * 10_240),
    Bad("10 KB in the key's field", ce(data=f'{{"case": "{"k" * 10_240}"}}'), "no key", "the field 'case'"),
    Bad("a key that is not text", ce("touched"), "no key", "UTF-8", key=b"\xff\xfe\x00"),
    Bad("a key that is not text, and not asked", noted(), "applied", key=b"\xff\xfe\x00"),
    Bad("a header that is not UTF-8", noted(), "applied", headers=[*STRUCTURED_HEADERS, ("a", b"\xff\xfe")]),
    Bad(
        "an attribute that is not UTF-8",
        b'{"case": "CASE"}',
        "unreadable",
        "the header 'ce_id' is not UTF-8",
        headers=binary(id=b"\xff\xfe"),
    ),
    Bad("a content type that is not UTF-8", b"{", "unreadable", headers=[("content-type", b"\xff\xfe")]),
    Bad(
        "a header's name that is not UTF-8",
        b"{",
        "unreadable",
        NO_JSON,
        headers=[("na\udcff\udcfe", b"\xff"), ("none", None), ("ce_nothing", b"\0")],
    ),
    Bad("specversion 0.3", ce(specversion='"0.3"'), "unreadable", "specversion is '0.3'"),
    Bad("specversion 2.0", ce(specversion='"2.0"'), "unreadable", "specversion is '2.0'"),
    Bad("specversion as a number", ce(specversion="1.0"), "unreadable", "specversion is 1.0"),
    Bad("binary, specversion 2.0", b"{}", "unreadable", "'2.0'", headers=binary(specversion=b"2.0")),
    Bad("no id", ce(id=None), "unreadable", "there is no id"),
    Bad("an empty id", ce(id='""'), "unreadable", "id is empty"),
    Bad("an id that is a number", ce(id="5"), "unreadable", "id is a number"),
    Bad("binary, no id", b"{}", "unreadable", "there is no id", headers=binary(id=None)),
    Bad("an extension that is an object", ce(odd='{"a": 1}'), "unreadable", "the attribute 'odd' is"),
    Bad("an extension with a fraction", ce(odd="1.5"), "unreadable", "the attribute 'odd' is a number with"),
    Bad("the last moment of the year 9999", ce(time='"9999-12-31T23:59:59.999999Z"'), "applied"),
    Bad("beyond 9999 in UTC", ce(time='"9999-12-31T23:59:59-05:00"'), "unreadable", "time is"),
    Bad("a time with en-dashes", ce(time='"2026\u201303\u201301T12:00:00Z"'), "unreadable", "time is"),
    misbehaved("raises", "ValueError: nul "),
    misbehaved("raises BaseException", "EverythingEndsError: now"),
    misbehaved("exits", "SystemExit: 3"),
    misbehaved("interrupts", "KeyboardInterrupt"),
    misbehaved("is cancelled", "CancelledError"),
    misbehaved("returns a number", "returned int"),
    misbehaved("returns a list with nothing", "returned several with NoneType"),
    misbehaved("leaves an object", "does not survive being stored"),
    misbehaved("leaves NaN", "does not survive being stored"),
    misbehaved("leaves a ring", "does not survive being stored"),
    misbehaved("leaves the wrong type", "does not survive being stored"),
    misbehaved("leaves megabytes", "of 1000000 allowed"),
    misbehaved("leaves the event", "")._replace(became="applied", run=UNHELD),
    misbehaved("keeps the event", "")._replace(became="applied", run=UNHELD),
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A bad record in the topic, between the start of its run and good events of that run and of another."""

    bad: Bad
    case: str
    record: Record
    offset: int


def good(type: str, case: str, id: str) -> Record:
    value = ce(type, '{"case": "CASE"}', id=f'"{id}"').replace(b"CASE", case.encode())
    return value, case.encode(), STRUCTURED_HEADERS


def with_case(bad: Bad, case: str) -> Record:
    name = case.encode()
    value = None if bad.value is None else bad.value.replace(b"CASE", name)
    headers = [(header, text and text.replace(b"CASE", name)) for header, text in bad.headers]
    return value, bad.key, headers


def laid_out() -> tuple[list[Record], list[Sent]]:
    """The topic's records, and where the bad ones stand among them."""
    records: list[Record] = []
    sent: list[Sent] = []
    for number, bad in enumerate(BAD):
        case = f"case-{number}"
        records += good("opened", case, f"{case}-opened"), good("opened", f"{case}-other", f"{case}-other")
        sent.append(Sent(bad, case, with_case(bad, case), len(records)))
        records.append(sent[-1].record)
        records += (
            good("noted", case, f"{case}-behind"),
            good("noted", f"{case}-other", f"{case}-other-behind"),
        )
    return records, sent


async def test_every_bad_record_has_one_clear_end_and_keeps_nobody_waiting(
    database: Database, kafka: Kafka, topic: TopicFactory
) -> None:
    name = await topic("trial", configs={"max.message.bytes": str(RECORD_BYTES_MAX)})
    machine = compile_pipeline(trial(name), namespace=database.name)
    records, sent = laid_out()
    await produce(kafka.bootstrap, name, records)
    settings = EngineSettings(database.engine_dsn, KafkaSettings(kafka.bootstrap), namespace=database.name)

    ended = await run(settings, [machine], until_idle=True)

    assert ended.ending is Ending.IDLE, ended.reasons
    reader = await connect_postgres(database.reader_dsn, for_engine=False)
    try:
        wrong = {one.bad.name: said for one in sent if (said := await wrong_with(reader, machine, name, one))}
        assert wrong == {}
        letters = sum(one.bad.became != "applied" for one in sent)
        assert await reader.fetchval("select count(*) from pointsman.dead_letters") == letters
        assert (await verify(reader, database.name)).is_clean
        assert [event.lines for event in KEPT] == [["came", "kept"]]
        assert (await replay(reader, database.name, [machine])).is_equal
    finally:
        KEPT.clear()
        await reader.close()


async def wrong_with(reader: Connection, machine: Any, topic: str, sent: Sent) -> list[str]:
    """What is not as it must be with one bad record, in words; empty where all is well."""
    wrong: list[str] = []
    bad = sent.bad
    letters = await reader.fetch(
        'select * from pointsman.dead_letters where "offset" = $1 order by id', sent.offset
    )
    became = await dispositions(reader, machine.namespace, topic, sent.offset)
    if bad.became == "applied":
        wrong += [f"dead letter: {letter['reason']}: {letter['error'][:200]}" for letter in letters]
        if became != {"applied": 1}:
            wrong.append(f"it became {dict(became)}")
    elif len(letters) != 1 or became != {"dead-lettered": 1}:
        wrong.append(f"{len(letters)} dead letters; it became {dict(became)}")
    wrong += [flaw for letter in letters for flaw in wrong_with_letter(letter, sent)]
    behind = {"held": 1} if bad.run == HELD else {"applied": 1}
    for offset, wanted in ((sent.offset + 1, behind), (sent.offset + 2, {"applied": 1})):
        found = await dispositions(reader, machine.namespace, topic, offset)
        if found != wanted:
            wrong.append(f"behind it, at {offset}: {dict(found)}")
    [its_run] = await list_runs(reader, machine.namespace, key=sent.case)
    if its_run.status != bad.run:
        wrong.append(f"its run is {its_run.status}")
    return wrong


def wrong_with_letter(letter: asyncpg.Record, sent: Sent) -> list[str]:
    value, key, headers = sent.record
    wrong = []
    if (letter["record_value"], letter["record_key"]) != (value, key):
        wrong.append("value or key are not as they came")
    if decode_headers(letter["record_headers"]) != tuple(headers):
        wrong.append(f"headers: {decode_headers(letter['record_headers'])}")
    if letter["record_headers"] != encode_headers(headers) or letter["record_time"] != TIME + sent.offset:
        wrong.append("headers or time are not as they came")
    if letter["reason"] != sent.bad.became or sent.bad.error not in letter["error"]:
        wrong.append(f"{letter['reason']}: {letter['error'][:200]}")
    if letter["publishing"] != "published":
        wrong.append(f"{letter['publishing']}: {letter['publishing_error']}")
    return wrong


async def dispositions(reader: Connection, namespace: str, topic: str, offset: int) -> Counter[str]:
    found = await explain(reader, namespace, topic=topic, partition=0, offset=offset)
    return Counter(answer.current.disposition for answer in found.answers)


async def produce(bootstrap: str, topic: str, records: Sequence[Record]) -> None:
    """Write these one by one to partition 0, to the byte: no client would send all of them."""
    client = await connect(KafkaSettings(bootstrap))
    try:
        await client.set_topics([topic])
        (node,) = {broker.nodeId for broker in client.cluster.brokers()}
        for offset, record in enumerate(records):
            request = ProduceRequest(None, -1, 10_000, [(topic, [(0, batch(record, TIME + offset))])])
            ((_, ((_, code, *_),)),) = (await client.send(node, request)).topics
            assert code == 0
    finally:
        await client.close()


def batch(record: Record, time: int) -> bytes:
    """A record batch; names of headers that are no text are put in once it is built, where they are as long."""
    value, key, headers = record
    raw_names = {f"~{at:03d}": name for at, (name, _) in enumerate(headers) if not name.isascii()}
    stand_ins = {name: stand_in for stand_in, name in raw_names.items()}
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 2**24)
    assert builder.append(0, time, key, value, [(stand_ins.get(name, name), text) for name, text in headers])
    built = bytearray(builder.build())
    for stand_in, name in raw_names.items():
        raw = name.encode("utf-8", "surrogateescape")
        assert len(raw) == len(stand_in)
        built = built.replace(stand_in.encode(), raw)
    built[CRC_AT:AFTER_CRC] = calc_crc32c(bytes(built[AFTER_CRC:])).to_bytes(4)
    return bytes(built)
