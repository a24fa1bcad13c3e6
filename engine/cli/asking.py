"""What commands share that ask the store: the connection, the run that is meant, and who asks."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from engine.cli.arguments import INT_MAX, check_run, up_to
from engine.cli.options import resolve
from engine.commands.words import shell_word
from engine.errors import UsageError
from statemachines.suggest import listed

if TYPE_CHECKING:
    from engine.store.connecting import Connection

Answer = TypeVar("Answer")

RunWords = Annotated[
    list[str],
    typer.Argument(
        metavar="[PIPELINE] KEY",
        help="The run; its pipeline must be named where several have a run of that key.",
        show_default=False,
    ),
]
Generation = Annotated[
    int | None,
    typer.Option(
        "--generation",
        metavar="N",
        min=0,
        callback=up_to(INT_MAX),
        help="Of the key's runs, not the latest but this.",
    ),
]
Pipeline = Annotated[str | None, typer.Option("--pipeline", metavar="NAME", help="Only of this pipeline.")]
Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only of this key.")]


def ask_store(
    options: Mapping[str, str | None], question: Callable[[Connection, str], Awaitable[Answer]]
) -> Answer:
    """Connect, check the schema, and ask; the question is given the connection and the namespace.

    Raises:
        PointsmanError: the store cannot be reached, or is of another version; or what the question raises.
    """
    settings = resolve(options)

    async def asking() -> Answer:
        from engine.store.connecting import connect  # noqa: PLC0415 - needs an extra to be installed
        from engine.store.migrations import check_schema  # noqa: PLC0415 - as above

        connection = await connect(settings.postgres, for_engine=False)
        try:
            await check_schema(connection)
            return await question(connection, settings.namespace)
        finally:
            await connection.close()

    return asyncio.run(asking())


async def find_address(connection: Connection, namespace: str, words: Sequence[str]) -> tuple[str, str]:
    """Pipeline and key of the run that is meant by ``PIPELINE KEY`` or ``KEY``.

    Raises:
        UsageError: there are other words, or several pipelines have a run of that key.
        NotFoundError: no run has that key.
    """
    from engine.reading import NotFoundError, list_runs  # noqa: PLC0415 - needs an extra to be installed

    check_run(words)
    *pipeline, key = words
    if pipeline:
        return pipeline[0], key
    names = list(
        dict.fromkeys(run.pipeline for run in await list_runs(connection, namespace, key=key, limit=0))
    )
    if not names:
        raise NotFoundError(
            f"There is no run with the key {key!r} in the namespace {namespace!r}. "
            "`pointsman runs` lists them; `pointsman explain EVENT_ID` tells what became of an event."
        )
    if len(names) > 1:
        raise UsageError(
            f"{listed(names)} have a run with the key {key!r}. Say which: PIPELINE {shell_word(key)}."
        )
    return names[0], key


async def unknown_pipeline(connection: Connection, namespace: str, pipeline: str | None) -> str:
    """What is said beside an empty list where nothing of this pipeline can be in one, by a slip perhaps."""
    from engine.reading import NotFoundError  # noqa: PLC0415 - needs an extra to be installed
    from engine.reading.operating import number_of  # noqa: PLC0415 - as above

    if pipeline is not None:
        try:
            await number_of(connection, namespace, pipeline)
        except NotFoundError as error:
            return str(error)
    return ""


def whoever(who: str | None) -> str:
    """Who decides: as given, else the user who is logged in."""
    if who is not None:
        return who
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
