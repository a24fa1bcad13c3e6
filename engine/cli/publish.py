"""``publish``: rows of a file as events on a topic."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from engine.cli.failures import BAD_INPUT, FAILED, INTERRUPTED, UNREACHABLE, require
from engine.cli.options import Json, Kafka
from engine.cli.output import console, counted, note, print_json, say
from engine.errors import UsageError
from engine.settings import Settings
from statemachines.suggest import did_you_mean

if TYPE_CHECKING:
    from connectors.files import (
        Choice,
        FileOptions,
        Progress,
        Publication,
        PublishedReport,
        RefusedRow,
    )
    from connectors.kafka.settings import KafkaSettings

STANDARD_INPUT = "-"
UNFIT_DELIMITERS = ' "\r\n'
INTERRUPT = (signal.SIGINT, signal.SIGTERM)
UNDER_WAY_SECONDS_MAX = 5.0
"""For the confirmation of what was sent, once it is to end."""
READERS_SECONDS_MAX = 5.0
"""So long at most it is waited to be told which topics are read."""
REFUSED_TOLD_MAX = 20
"""Rows that get a line each; the others are counted."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Events")(publish)


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)],
    file: Annotated[
        str,
        typer.Argument(metavar="FILE|-", help="JSON lines or CSV; - is standard input.", show_default=False),
    ],
    *,
    type: Annotated[
        str | None,
        typer.Option("--type", metavar="FIELD|=VALUE", help="The event's type. \\[default: the field type]"),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="FIELD|=VALUE", help="The Kafka key. \\[default: none]")
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="FIELD|=VALUE",
            help="The event's id. Where rows may be doubled, name a field. \\[default: made of the row's "
            "content, and of how many equal rows came before it]",
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="FIELD|=VALUE", help="When it happened. \\[default: none]")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="TEXT",
            help="Who says so; together with the id it is what an event is known by. \\[default: file:NAME, whatever "
            "folder the file is in; of standard input, or of a pipe, a new one each time]",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="jsonl|csv", help="\\[default: by the file's name, or how it begins]"
        ),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option("--delimiter", metavar="LETTER", help="Of CSV. \\[default: found out]")
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Each line says what record it is, and not which event: "
            '{"value": ..., "key": ..., "headers": {...}}. Text is taken as it is, all else as JSON; without a value '
            "the record has none.",
        ),
    ] = False,
    kafka: Kafka = None,
    json: Json = False,
) -> int:
    """Publish each row of a file as an event, confirmed by all replicas in sync.

    The whole row is the event's data. --type, --key, --id and --time name a field of the row, or give one value for all
    rows: --type activity, --type =order.placed. A file that is published again gives the same ids, so that an engine
    takes each event once. Under another name its events are others, and so is what comes by standard input, or by a
    pipe, each time: there give the --source that it had, which is said where not all was confirmed. Ends with 1 where a
    row was refused; others are published all the same. Ctrl-C and SIGTERM have no further row be read; what became of
    the others is said, and it ends with 130. Where POINTSMAN_POSTGRES is set, it says if no pipeline reads the topic.
    """
    require("publish", "aiokafka")
    from connectors.files import FileOptions  # noqa: PLC0415 - needs an extra to be installed
    from connectors.row_events import has_name  # noqa: PLC0415 - as above

    if format not in (None, "jsonl", "csv"):
        raise UsageError(f"--format is {format!r}; it can be jsonl or csv.")
    if delimiter is not None and (len(delimiter) != 1 or delimiter in UNFIT_DELIMITERS):
        raise UsageError(
            f"--delimiter is {delimiter!r}; it can be one letter that is no quote, blank or end of line."
        )
    if source is not None and not source.strip():
        raise UsageError("--source is empty; to have the default, leave it out.")
    if delimiter is not None and format == "jsonl":
        raise UsageError("--delimiter is of CSV, and not of --format jsonl.")
    if raw and (format == "csv" or any(one is not None for one in (type, key, id, time, source, delimiter))):
        raise UsageError("--raw takes records as they are, from JSON lines: there is nothing else to choose.")
    options = FileOptions(
        type=_choice("--type", type),
        key=_choice("--key", key),
        id=_choice("--id", id),
        time=_choice("--time", time),
        source=source,
        form="csv" if format == "csv" else "jsonl" if format == "jsonl" or raw else None,
        delimiter=delimiter,
        raw=raw,
    )
    settings = Settings.resolve({"kafka": kafka}, os.environ)
    broker = settings.kafka
    told, is_same_again = _Told(), source is not None or has_name(file)
    with _opened(file) as stream, _progress() as on_progress:
        _rehearse(topic, stream, file, options)
        report = asyncio.run(_publish(broker, topic, stream, file, options, told, on_progress))
    told.rest()
    _tell_of_readers(topic, settings)
    if json:
        print_json({"topic": topic, "file": file, **_report_json(report)})
    else:
        _say(report, topic, again_by=None if is_same_again else report.source, raw=raw)
    return _exit_code(report)


async def _publish(
    settings: KafkaSettings,
    topic: str,
    stream: BinaryIO,
    file: str,
    options: FileOptions,
    on_refused: Callable[[RefusedRow], None],
    on_progress: Callable[[Progress], None],
) -> PublishedReport:
    from connectors.files import Publication  # noqa: PLC0415 - needs an extra to be installed
    from connectors.publishing import ConfirmingProducer, PublishLimits  # noqa: PLC0415 - as above

    producer = ConfirmingProducer(settings, PublishLimits())
    await producer.start()
    publication = Publication(
        producer, topic, stream, file, options, on_refused=on_refused, on_progress=on_progress
    )
    try:
        with _interruptible(publication):
            return await publication.run()
    except asyncio.CancelledError:
        return publication.report
    finally:
        await producer.stop()


@contextlib.contextmanager
def _interruptible(publication: Publication) -> Iterator[None]:
    """Ctrl-C and SIGTERM have nothing more be read, and what is under way be waited for; a second one, nothing."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[asyncio.TimerHandle] = []

    def on_signal() -> None:
        if asked:
            task.cancel()
            return
        publication.stop()
        asked.append(loop.call_later(UNDER_WAY_SECONDS_MAX, task.cancel))

    for number in INTERRUPT:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in INTERRUPT:
            loop.remove_signal_handler(number)
        for timer in asked:
            timer.cancel()


def _tell_of_readers(topic: str, settings: Settings) -> None:
    """Say that no pipeline reads a topic, where the store is known and says so: its name may be a slip, or not."""
    if settings.value("postgres") is None or importlib.util.find_spec("asyncpg") is None:
        return
    try:
        read = asyncio.run(_topics_read(settings))
    except Exception:  # noqa: BLE001 - the events are where they belong, whatever is the matter with the store
        return
    if read and topic not in read:
        note(
            f"No pipeline of the namespace {settings.namespace!r} reads the topic {topic!r}. "
            f"{did_you_mean(topic, sorted(read))} The events are there all the same, for others."
        )


async def _topics_read(settings: Settings) -> set[str]:
    from engine.reading.topics import topics_read  # noqa: PLC0415 - needs an extra to be installed
    from engine.store.connecting import connect  # noqa: PLC0415 - as above
    from engine.store.migrations import check_schema  # noqa: PLC0415 - as above

    # A connection that is given up half-way speaks of it.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with asyncio.timeout(READERS_SECONDS_MAX):
        connection = await connect(settings.postgres, for_engine=False)
        try:
            await check_schema(connection)
            return await topics_read(connection, settings.namespace)
        finally:
            await connection.close()


def _rehearse(topic: str, stream: BinaryIO, file: str, options: FileOptions) -> None:
    """Refuse what can be known to fail before Kafka is asked; what comes through a pipe is only read once.

    Raises:
        EventRefusedError: no topic can have this name.
        FileError: the file cannot be read as rows at all.
        UsageError: the source cannot be one.
    """
    from connectors.publish_errors import check_topic_name  # noqa: PLC0415 - needs an extra to be installed
    from connectors.row_events import RowEvents  # noqa: PLC0415 - as above
    from connectors.rows import read_rows  # noqa: PLC0415 - as above

    check_topic_name(topic)
    try:
        RowEvents(topic, file, options)
    except ValueError as error:
        raise UsageError(f"--source cannot be that: {error}.") from None
    if not stream.seekable():
        return
    columns, begin = options.columns(), stream.tell()
    try:
        read_rows(stream, file, form=options.form, delimiter=options.delimiter, columns=columns)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from None
    stream.seek(begin)


class _Told:
    """Says of the first rows that are refused why, and counts the others."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, row: RefusedRow) -> None:
        self._count += 1
        if self._count <= REFUSED_TOLD_MAX:
            note(f"{row.place}: {row.error}")

    def rest(self) -> None:
        """Say how many were not told of."""
        if self._count > REFUSED_TOLD_MAX:
            note(f"{self._count - REFUSED_TOLD_MAX:,} more rows were refused.")


def _choice(option: str, text: str | None) -> Choice | None:
    from connectors.files import Choice  # noqa: PLC0415 - needs an extra to be installed

    try:
        return None if text is None else Choice.parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}.") from None


@contextlib.contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    from connectors.row_events import has_name  # noqa: PLC0415 - needs an extra to be installed

    if file == STANDARD_INPUT:
        yield _standard_input()
        return
    # The thread that reads a pipe may wait for ever, and to close that would be to wait for it.
    closes = has_name(file)
    try:
        stream = open(os.open(file, os.O_RDONLY), "rb", closefd=closes)  # noqa: SIM115 - closed by the `with` below
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}.") from None
    with stream if closes else contextlib.nullcontext():
        yield stream


def _standard_input() -> BinaryIO:
    """Read by a thread, which may wait for input that never comes: Python, as it ends, must not wait for that one."""
    with contextlib.suppress(OSError):
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return sys.stdin.buffer


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Tells on a terminal how far it is."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield lambda _: None
        return
    with screen.status("publishing ...") as status:
        yield lambda done: status.update(f"{done.confirmed:,} confirmed, {done.refused:,} refused")


def _report_json(report: PublishedReport) -> dict[str, object]:
    return {
        "confirmed": report.confirmed,
        "refused": report.refused,
        "unconfirmed": report.unconfirmed,
        "unconfirmed_from": report.unconfirmed_from,
        "failure": None if report.failure is None else str(report.failure),
        "source": report.source,
    }


def _say(report: PublishedReport, topic: str, again_by: str | None, *, raw: bool) -> None:
    """Say what became of it; ``again_by`` is the source without which it would be other events the next time."""
    what = counted(report.confirmed, "record" if raw else "event")
    say(f"{what} confirmed on {topic}, {counted(report.refused, 'row')} refused.")
    if report.failure is not None:
        note(str(report.failure))
    if report.unconfirmed:
        note(
            f"Of {report.unconfirmed:,} it is not known whether they arrived, the first being "
            f"{report.unconfirmed_from}."
        )
    if raw or (report.failure is None and not report.refused):
        return
    if again_by is not None:
        apart = (
            " Publish lines that are CloudEvents apart from them, without it."
            if report.has_cloudevents
            else ""
        )
        note(
            f"Published again with --source {again_by}, events that are there already are taken once.{apart}"
        )
    elif report.failure is not None:
        note("Published again, events that are there already are taken once.")


def _exit_code(report: PublishedReport) -> int:
    from connectors.files import StoppedError  # noqa: PLC0415 - needs an extra to be installed
    from connectors.publish_errors import KafkaUnreachableError  # noqa: PLC0415 - needs an extra to be installed

    if isinstance(report.failure, StoppedError):
        return INTERRUPTED
    if isinstance(report.failure, KafkaUnreachableError):
        return UNREACHABLE
    if report.failure is not None:
        return FAILED if report.confirmed or report.unconfirmed else BAD_INPUT
    return FAILED if report.refused else 0
