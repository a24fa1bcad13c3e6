"""Files become events row by row, and nothing is lost in silence."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from connectors import rows
from connectors.decode import Decoded, decode
from connectors.files import (
    Choice,
    FileError,
    FileOptions,
    Publication,
    PublishedReport,
    RefusedRow,
    StoppedError,
)
from connectors.publish_errors import EventRefusedError, KafkaUnreachableError, PublishError
from connectors.publishing import Outgoing, Receipt, Sent
from connectors.source import RawRecord
from statemachines.definition import Topic

RAW = FileOptions(form="jsonl", raw=True)
LOG = (
    "case:concept:name,concept:name,time:timestamp\n"
    "case-1,Confirmation of receipt,2011-10-11 13:45:40.276000+02:00\n"
    "case-1,T02 Check,2011-10-12 08:26:25.398000+02:00\n"
)
LOG_OPTIONS = FileOptions(
    type=Choice.parse("concept:name"),
    key=Choice.parse("case:concept:name"),
    time=Choice.parse("time:timestamp"),
)


class Broker:
    """Takes records; those whose number (from 0) is in ``errors`` fail like that."""

    def __init__(self, errors: dict[int, PublishError] | None = None) -> None:
        self.taken: list[Outgoing] = []
        self._errors = errors or {}

    async def send_all(self, records: AsyncIterable[Outgoing]) -> AsyncGenerator[Sent]:
        number = 0
        async for record in records:
            error = self._errors.get(number)
            number += 1
            if error is not None:
                yield Sent(record, error)
                if not isinstance(error, EventRefusedError):
                    return
                continue
            self.taken.append(record)
            yield Sent(record, Receipt(record.topic, 0, len(self.taken) - 1, record.id))

    @property
    def events(self) -> list[Decoded]:
        found = []
        for record in self.taken:
            event = decode(
                RawRecord(record.topic, 0, 0, 0, record.key, record.value, record.headers), Topic("t"), "c"
            )
            assert isinstance(event, Decoded), event
            found.append(event)
        return found


class Published:
    def __init__(self, report: PublishedReport, refused: list[RefusedRow], broker: Broker) -> None:
        self.report = report
        self.refused = refused
        self.broker = broker

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.report.confirmed, self.report.refused, self.report.unconfirmed

    @property
    def ids(self) -> list[str]:
        return [record.id for record in self.broker.taken]

    @property
    def data(self) -> list[Any]:
        return [event.data for event in self.broker.events]


async def publish(
    content: str | bytes,
    name: str = "log.csv",
    options: FileOptions | None = None,
    broker: Broker | None = None,
) -> Published:
    broker = broker or Broker()
    refused: list[RefusedRow] = []
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    report = await Publication(
        broker, "orders", stream, name, options or FileOptions(), on_refused=refused.append
    ).run()
    assert report.refused == len(refused)
    return Published(report, refused, broker)


async def test_rows_of_csv_become_events_with_type_key_and_time_of_their_columns() -> None:
    done = await publish(LOG, options=LOG_OPTIONS)
    assert done.counts == (2, 0, 0)
    first, second = done.broker.events
    assert (first.envelope.type, first.envelope.key) == ("Confirmation of receipt", "case-1")
    assert first.envelope.time == datetime(2011, 10, 11, 11, 45, 40, 276_000, tzinfo=UTC)
    assert first.envelope.source == "file:log.csv"
    assert second.data == {
        "case:concept:name": "case-1",
        "concept:name": "T02 Check",
        "time:timestamp": "2011-10-12 08:26:25.398000+02:00",
    }
    assert [record.key for record in done.broker.taken] == [b"case-1", b"case-1"]


async def test_raw_rows_say_which_records_they_are() -> None:
    lines = (
        b'{"value": {"op": "d", "n": 1}, "key": {"id": 3}, "headers": {"a": "b", "n": [1], "none": null}}\n'
        b'{"value": "as it is", "key": "k"}\n'
        b'{"key": "k"}\n'
        b'{"value": 5, "specversion": "1.0"}\n{"headers": {}}\n{"value": 5, "headers": []}\n[]\n'
    )
    deep = b'{"value": ' + b"[" * 500 + b"]" * 500 + b"}\n"
    done = await publish(lines + deep, "records.txt", RAW)
    assert [(one.key, one.value, list(one.headers)) for one in done.broker.taken] == [
        (b'{"id":3}', b'{"op":"d","n":1}', [("a", b"b"), ("n", b"[1]"), ("none", None)]),
        (b"k", b"as it is", []),
        (b"k", None, []),
    ]
    assert [one.place for one in done.refused] == [f"records.txt:{line}" for line in (4, 5, 6, 7, 8)]
    assert [one.error.partition(",")[0] for one in done.refused] == [
        "a record has value",
        "the record has neither a key nor a value",
        "headers is an array",
        "the line is an array",
        "the record is nested too deep to be written",
    ]
    assert done.report.source is None


async def test_values_can_be_given_for_all_rows() -> None:
    options = FileOptions(type=Choice.parse("=order.placed"), key=Choice.parse("=one"), id=Choice.parse("no"))
    done = await publish('{"no": 17}\n{"no": "b"}\n', "orders.jsonl", options)
    assert [(e.envelope.id, e.envelope.type, e.envelope.key) for e in done.broker.events] == [
        ("17", "order.placed", "one"),
        ("b", "order.placed", "one"),
    ]


def test_a_choice_needs_a_name_or_a_value() -> None:
    assert Choice.parse("=a=b") == Choice(value="a=b")
    assert Choice.parse("a=b") == Choice(field="a=b")
    for text in ("", "="):
        with pytest.raises(ValueError, match="give the name of a field, or =VALUE"):
            Choice.parse(text)


async def test_the_data_of_a_json_line_is_the_line_as_it_is() -> None:
    number = "1" * 300
    done = await publish(f'{{"type": "t", "big": {number}, "big2" : 1.10}}\n', "a.jsonl")
    assert f'{{"type": "t", "big": {number}, "big2" : 1.10}}'.encode() in (done.broker.taken[0].value or b"")


async def test_publishing_again_gives_the_same_ids_also_when_rows_were_taken_out_or_mended() -> None:
    lines = [f"k{number % 3},t,{number}\n" for number in range(9)]
    header, options = "k,type,n\n", FileOptions(key=Choice.parse("k"))
    first = await publish(header + "".join(lines), options=options)
    again = await publish(header + "".join(lines), options=options)
    assert first.ids == again.ids
    assert len(set(first.ids)) == 9
    mended = await publish(header + "new,t,0\n" + "".join(lines[2:]), options=options)
    assert mended.ids[1:] == first.ids[2:]
    assert mended.ids[0] not in first.ids


async def test_equal_rows_are_events_of_their_own() -> None:
    row = "k,t\n"
    done = await publish("key,type\n" + row * 3)
    assert len(set(done.ids)) == 3
    assert (await publish("key,type\n" + row * 2)).ids == done.ids[:2]


async def test_the_type_and_the_key_are_part_of_what_makes_an_id() -> None:
    content = "a,b\n1,2\n"
    ids = [
        (await publish(content, options=FileOptions(type=Choice.parse(t), key=Choice.parse(k)))).ids[0]
        for t, k in [("=t", "a"), ("=t", "b"), ("=u", "a"), ("=t", "=1")]
    ]
    assert len(set(ids[:3])) == 3
    assert ids[0] == ids[3]


async def test_standard_input_is_new_each_time_unless_it_has_a_source() -> None:
    async def identities(options: FileOptions) -> set[tuple[str, str]]:
        done = await publish('{"type": "t"}\n', "-", options)
        return {(event.envelope.source, event.envelope.id) for event in done.broker.events}

    assert await identities(FileOptions()) != await identities(FileOptions())
    named = FileOptions(source="/shop")
    assert await identities(named) == await identities(named)


async def test_the_source_has_the_files_name_without_its_folder() -> None:
    done = await publish("type\nt\n", "/somewhere/über all.csv")
    assert done.broker.events[0].envelope.source == "file:%C3%BCber%20all.csv"


async def test_cloudevents_are_published_as_they_are() -> None:
    line = b'{"specversion":"1.0", "id":"e-1","source":"/s","type":"t","partitionkey":"p","data":{"a":1.10}}'
    done = await publish(line + b"\n", "events.jsonl")
    assert done.broker.taken == [
        Outgoing("orders", b"p", line, (("content-type", b"application/cloudevents+json"),), "e-1")
    ]


async def test_what_is_chosen_is_put_into_cloudevents() -> None:
    line = '{"specversion":"1.0","id":"e-1","source":"/s","type":"t","data":{"no":7,"at":1000}}\n'
    options = FileOptions(
        type=Choice.parse("=other"),
        key=Choice.parse("data.no"),
        id=Choice.parse("data.no"),
        time=Choice.parse("data.at"),
        source="/mine",
    )
    [event] = (await publish(line, "events.jsonl", options)).broker.events
    envelope = event.envelope
    assert (envelope.id, envelope.type, envelope.key, envelope.source) == ("7", "other", "7", "/mine")
    assert envelope.time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert event.data == {"no": 7, "at": 1000}


async def test_cloudevents_with_a_flaw_are_refused() -> None:
    lines = [
        '{"specversion":"0.3","id":"e-1","source":"/s","type":"t"}',
        '{"specversion":"1.0","source":"/s","type":"t"}',
        orjson.dumps(
            {"specversion": "1.0", "id": "e", "source": "/s", "type": "t", "partitionkey": "x" * 2_000}
        ).decode(),
    ]
    done = await publish("\n".join(lines), "events.jsonl")
    assert done.counts == (0, 3, 0)
    errors = [refused.error for refused in done.refused]
    assert "specversion is '0.3'" in errors[0]
    assert "there is no id" in errors[1]
    assert "key takes 2,000 bytes" in errors[2]


async def test_bad_json_lines_are_refused_with_their_place_and_the_others_go_on() -> None:
    content = (
        b'\xef\xbb\xbf{"type":"a"}\n\n{"type":\n[1]\n"x"\n\xff\n{"no":1}\n{"type":5.5}\n   \r\n{"type":"b"}'
    )
    done = await publish(content, "bad.jsonl")
    assert [event.envelope.type for event in done.broker.events] == ["a", "b"]
    assert [refused.place for refused in done.refused] == [f"bad.jsonl:{line}" for line in (3, 4, 5, 6, 7, 8)]
    sentences = [
        "the line is not JSON",
        "an array",
        "a string",
        "not JSON",
        "the row has no 'type'",
        "fraction",
    ]
    for refused, sentence in zip(done.refused, sentences, strict=True):
        assert sentence in refused.error


async def test_bad_csv_rows_are_refused_with_their_place_and_the_others_go_on() -> None:
    content = (
        b"\xef\xbb\xbftype,key\r\n"
        b"a,1\r\n"
        b"\r\n"
        b"too,many,fields\r\n"
        b"few\r\n"
        b'"quo"ted,2\r\n'
        b"not \xff utf-8,3\r\n"
        b'"two\r\nlines",4\r\n'
        b",5\r\n"
        b"b,6\r\n"
        b'"open,7\r\n'
        b"c,8\r\n"
    )
    done = await publish(content)
    assert [event.envelope.type for event in done.broker.events] == ["a", "two\r\nlines", "b"]
    assert [refused.place for refused in done.refused] == [f"log.csv:{line}" for line in (4, 5, 6, 7, 10, 12)]
    sentences = [
        "the row has 3 fields, and the header has 2",
        "the row has 1 fields",
        "the row cannot be read as CSV: ',' expected after '\"'",
        "the row is not UTF-8",
        "type is empty",
        "the row that ends in line 13 cannot be read as CSV: unexpected end of data",
    ]
    for refused, sentence in zip(done.refused, sentences, strict=True):
        assert sentence in refused.error


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
async def test_the_delimiter_is_found_in_the_header(delimiter: str) -> None:
    content = f"type{delimiter}key{delimiter}text\nt{delimiter}k{delimiter}a b\n"
    assert (await publish(content)).data == [{"type": "t", "key": "k", "text": "a b"}]


async def test_a_delimiter_can_be_given() -> None:
    assert (await publish("type#a,b\nt#1,2\n", options=FileOptions(delimiter="#"))).data == [
        {"type": "t", "a,b": "1,2"}
    ]


async def test_a_column_without_a_name_gets_one() -> None:
    assert (await publish(",type\n0,t\n")).data == [{"column_1": "0", "type": "t"}]


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (
            "activity,key\na,1\n",
            "a.csv",
            r"a\.csv has no column 'type'\. Its columns are 'activity', 'key'\.",
        ),
        ("typ,key\na,1\n", "a.csv", r"has no column 'type'\. Did you mean 'typ'\?"),
        ("type,type\na,1\n", "a.csv", "more than one column 'type'"),
        ("", "a.csv", r"a\.csv is empty"),
        ("type,key\n".encode("utf-16"), "a.csv", "is in UTF-16"),
        (b"type,\xff\n", "a.csv", "is not UTF-8"),
        ("type\rt\r", "a.csv", "the header of a.csv cannot be read as CSV"),
        ('[{"type": "t"}]', "a.json", "is one JSON array, not an object on each line"),
    ],
)
async def test_what_cannot_be_read_as_rows_at_all_is_said_before_anything_is_sent(
    content: str | bytes, name: str, sentence: str
) -> None:
    broker = Broker()
    with pytest.raises(FileError, match=sentence):
        await publish(content, name, broker=broker)
    assert not broker.taken


@pytest.mark.parametrize(
    ("name", "content"),
    [("-", '{"type": "t"}'), ("-", "type\nt\n"), ("log", "type\nt\n"), ("a.NDJSON", '{"type":"t"}')],
)
async def test_the_form_is_told_by_the_name_or_the_beginning(name: str, content: str) -> None:
    assert (await publish(content, name)).data == [{"type": "t"}]


@pytest.mark.parametrize("name", ["a.jsonl", "-", "/dev/stdin", "log"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
async def test_what_is_empty_and_not_said_to_be_csv_has_no_rows(name: str, content: bytes) -> None:
    assert (await publish(content, name)).counts == (0, 0, 0)


@pytest.mark.parametrize("options", [FileOptions(form="csv"), FileOptions(delimiter=";")])
async def test_what_is_empty_and_said_to_be_csv_lacks_its_header(options: FileOptions) -> None:
    with pytest.raises(FileError, match="- is empty: CSV begins with a line of column names"):
        await publish("", "-", options)


@pytest.mark.parametrize(
    ("time", "sentence"),
    [
        ("2011-10-11 13:45:40", "it has no zone, or lacks its seconds"),
        ("yesterday", "the time is 'yesterday'"),
        ("2024\N{EN DASH}05\N{EN DASH}01T00:00:00Z", "the time is '2024\\u2013"),
    ],
)
async def test_a_time_that_is_none_is_refused(time: str, sentence: str) -> None:
    done = await publish(f"type,at\nt,{time}\nt,\n", options=FileOptions(time=Choice.parse("at")))
    assert done.counts == (1, 1, 0)
    assert sentence in done.refused[0].error
    assert done.broker.events[0].envelope.time is None


async def test_lines_that_are_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LINE_BYTES_MAX", 100)
    long = "x" * 350
    done = await publish(f'type\na\n{long}\n"{"y" * 90}\n{long}\n"\nb\n')
    assert [event.envelope.type for event in done.broker.events] == ["a", "b"]
    assert [refused.place for refused in done.refused] == ["log.csv:3", "log.csv:4"]
    assert all("is longer than" in refused.error for refused in done.refused)
    lines = await publish(f'{{"type":"a"}}\n{{"type":"{long}"}}\n{{"type":"b"}}\n', "a.jsonl")
    assert [event.envelope.type for event in lines.broker.events] == ["a", "b"]
    assert lines.refused[0].place == "a.jsonl:2"
    assert "is longer than" in lines.refused[0].error


async def test_a_row_that_the_broker_refuses_is_told_with_its_place() -> None:
    broker = Broker({1: EventRefusedError("too large")})
    done = await publish("type\na\n\nb\nc\n", broker=broker)
    assert done.counts == (2, 1, 0)
    assert done.refused == [RefusedRow("log.csv:4", "too large")]


async def test_publishing_stops_when_kafka_fails_and_says_how_many_are_confirmed() -> None:
    away = KafkaUnreachableError("Kafka is away")
    done = await publish("type\na\nb\nc\nd\n", broker=Broker({2: away}))
    assert done.counts == (2, 0, 1)
    assert done.report.failure is away
    assert done.report.unconfirmed_from == "log.csv:4"


async def test_who_stops_has_no_further_row_sent_and_is_told_of_those_that_were() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"type":"a"}\n{"type":"b"}\n')

    class Stopping(Broker):
        async def send_all(self, records: AsyncIterable[Outgoing]) -> AsyncGenerator[Sent]:
            async for sent in super().send_all(records):
                yield sent
                if len(self.taken) == 2:
                    # What it waits for now never comes.
                    publication.stop()

    with os.fdopen(reading, "rb", buffering=0) as stream:
        publication = Publication(Stopping(), "orders", stream, "-", FileOptions(), on_refused=print)
        report = await publication.run()
        os.close(writing)
    assert (report.confirmed, report.unconfirmed, report.unconfirmed_from) == (2, 0, None)
    assert isinstance(report.failure, StoppedError)
    assert (report.source or "").startswith("stdin:")


async def test_who_is_cancelled_is_told_what_was_under_way_as_not_confirmed() -> None:
    class Silent(Broker):
        async def send_all(self, records: AsyncIterable[Outgoing]) -> AsyncGenerator[Sent]:
            async for sent in super().send_all(records):
                if len(self.taken) == 2:
                    under_way.set()
                    await asyncio.Event().wait()
                yield sent

    under_way, content = asyncio.Event(), io.BytesIO(b"type\na\nb\nc\n")
    publication = Publication(Silent(), "orders", content, "log.csv", FileOptions(), on_refused=print)
    task = asyncio.create_task(publication.run())
    await under_way.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    report = publication.report
    assert (report.confirmed, report.unconfirmed, report.unconfirmed_from) == (1, 1, "log.csv:3")
    assert isinstance(report.failure, StoppedError)


async def test_only_events_that_had_none_are_given_a_source() -> None:
    own = '{"specversion":"1.0","id":"e-1","source":"/s","type":"t"}\n'
    assert (await publish(own, "-")).report.source is None
    assert (await publish(own, "-")).report.has_cloudevents
    both = (await publish(own + '{"type":"t"}\n', "-")).report
    assert (both.has_cloudevents, (both.source or "").startswith("stdin:")) == (True, True)
    named = (await publish('{"type":"t"}\n', "a.jsonl")).report
    assert (named.source, named.has_cloudevents) == ("file:a.jsonl", False)


async def test_what_is_no_file_has_a_source_of_its_own_each_time(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pipe.jsonl", tmp_path / "a b.jsonl"
    os.mkfifo(pipe)
    file.touch()

    async def sources(name: object) -> set[str]:
        return {(await publish('{"type":"t"}\n', str(name))).report.source or "" for _ in range(2)}

    for name in ("-", "/dev/stdin", "/dev/fd/63", "/dev/../dev/fd/0", "/proc/self/fd/0", pipe):
        found = await sources(name)
        assert len(found) == 2, name
        assert all(source.startswith("stdin:") for source in found)
    assert await sources(file) == {"file:a%20b.jsonl"}


class Breaking(io.BytesIO):
    """A file on a disk that fails."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if line == b"c\n":
            raise OSError("the disk is gone")
        return line


async def test_a_file_that_breaks_off_is_said_so_and_what_was_read_is_published() -> None:
    broker = Broker()
    report = await Publication(
        broker, "orders", Breaking(b"type\na\nb\nc\n"), "log.csv", FileOptions(), on_refused=print
    ).run()
    assert isinstance(report.failure, FileError)
    assert [event.envelope.type for event in broker.events] == ["a", "b"]
    assert "cannot be read any further: the disk is gone" in str(report.failure)


async def test_what_comes_through_a_pipe_is_published_as_it_comes() -> None:
    reading, writing = os.pipe()
    arrived = threading.Event()

    class Watching(Broker):
        async def send_all(self, records: AsyncIterable[Outgoing]) -> AsyncGenerator[Sent]:
            async for sent in super().send_all(records):
                arrived.set()
                yield sent

    def write() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(b'{"type":"a"}\n')
            pipe.flush()
            # The second line is written only once the first was sent.
            if arrived.wait(60):
                pipe.write(b'{"type":"b"}\n')

    writer = threading.Thread(target=write)
    writer.start()
    broker = Watching()
    with os.fdopen(reading, "rb") as stream:
        report = await Publication(broker, "orders", stream, "-", FileOptions(), on_refused=print).run()
    writer.join()
    assert report.confirmed == 2
