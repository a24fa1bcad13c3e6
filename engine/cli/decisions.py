"""``relay`` and ``positions``: what the engine leaves to a person, and how it stands."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.arguments import BIGINT_MAX, INT_MAX, check_text, up_to
from engine.cli.asking import ask_store, whoever
from engine.cli.failures import FAILED
from engine.cli.looking import tell_limit
from engine.cli.options import Json, Kafka, Limit, Namespace, Postgres, Who, resolve
from engine.cli.output import print_facts, print_json, print_rows, say
from engine.settings import Settings

if TYPE_CHECKING:
    from engine.reading import PositionSet, PositionView
    from engine.store.connecting import Connection

PANEL = "Decisions"

ALL = "all"
"""Partitions of a topic, for its number."""

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.", show_default=False)]


def _number_or_all(text: str) -> str:
    if text != ALL and not (text.isascii() and text.isdigit() and int(text) <= INT_MAX):
        raise typer.BadParameter(f"{text!r} is neither the number of a partition nor `all`.")
    return text


def register(app: typer.Typer) -> None:
    """Add the commands."""
    relay = typer.Typer(name="relay", help="How publishing stands; let it go on.", no_args_is_help=True)
    relay.command("status")(relay_status)
    relay.command("accept")(relay_accept)
    app.add_typer(relay, rich_help_panel=PANEL)
    positions = typer.Typer(name="positions", help="How far topics are read; set it.", no_args_is_help=True)
    positions.command("list")(list_positions)
    positions.command("set")(set_position)
    app.add_typer(positions, rich_help_panel=PANEL)


def relay_status(
    postgres: Postgres = None, kafka: Kafka = None, namespace: Namespace = None, json: Json = False
) -> int:
    """Show how publishing stands. Ends with 1 where a person must decide."""
    from engine.relay import relay_status  # noqa: PLC0415 - needs an extra to be installed

    settings = _settings(postgres, kafka, namespace)
    found = asyncio.run(relay_status(settings.postgres, settings.kafka, settings.namespace))
    if json:
        print_json(dataclasses.asdict(found))
    else:
        print_facts(
            {
                "namespace": found.namespace,
                "commits that published": found.ticket,
                "published up to": "nothing yet" if found.progress is None else found.progress,
                "waiting": found.depth,
                "store": found.store,
                "health": "well" if found.healthy else "stopped",
            }
        )
        if not found.healthy:
            say(found.reason)
    return 0 if found.healthy else FAILED


def relay_accept(
    reason: Reason,
    after: Annotated[
        int | None,
        typer.Option(
            "--after",
            metavar="ROW",
            min=0,
            callback=up_to(BIGINT_MAX),
            help="Go on behind this row of the outbox instead.",
        ),
    ] = None,
    who: Who = None,
    postgres: Postgres = None,
    kafka: Kafka = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Let publishing go on after it stopped for a decision; `relay status` says what that means."""
    check_text("--reason", reason)
    check_text("--who", who)
    from engine.relay import relay_accept  # noqa: PLC0415 - needs an extra to be installed

    settings = _settings(postgres, kafka, namespace)
    done = asyncio.run(
        relay_accept(
            settings.postgres,
            settings.kafka,
            settings.namespace,
            reason=reason,
            who=whoever(who),
            after=after,
        )
    )
    if json:
        print_json(dataclasses.asdict(done))
        return
    say(f"The relay goes on after row {done.resumes_after} of the outbox. {done.consequence}".rstrip())


def list_positions(
    topic: Annotated[str | None, typer.Option("--topic", metavar="NAME", help="Only of this topic.")] = None,
    group: Annotated[str | None, typer.Option("--group", metavar="NAME", help="Only of this group.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="ID", help="Only of this cluster.")
    ] = None,
    limit: Limit = 0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """List how far each partition is applied: the next offset."""

    async def question(connection: Connection, namespace: str) -> list[PositionView]:
        from engine.reading import list_positions  # noqa: PLC0415 - needs an extra to be installed

        return await list_positions(
            connection, namespace, topic=topic, group=group, cluster=cluster, limit=limit
        )

    found = ask_store({"postgres": postgres, "namespace": namespace}, question)
    if json:
        print_json(found)
    else:
        print_rows(
            ("topic", "partition", "position", "epoch", "group", "cluster", "updated"),
            [
                (one.topic, one.partition, one.position, one.epoch, one.group, one.cluster, one.updated)
                for one in found
            ],
            right=("partition", "position", "epoch"),
        )
    tell_limit(len(found), limit, "position")


def set_position(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    partition: Annotated[
        str, typer.Argument(metavar="PARTITION", help="Its number, or `all`.", callback=_number_or_all)
    ],
    position: Annotated[
        int,
        typer.Argument(
            metavar="POSITION", help="The next offset to apply.", min=0, callback=up_to(BIGINT_MAX)
        ),
    ],
    reason: Reason,
    group: Annotated[
        str | None,
        typer.Option(
            "--group", metavar="NAME", help="Of several consumer groups, this one's. Or POINTSMAN_GROUP."
        ),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="ID", help="Of several clusters, this one's.")
    ] = None,
    who: Who = None,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Let partitions go on from another offset. What is skipped is never applied; what was applied is a duplicate."""
    check_text("--reason", reason)
    check_text("--who", who)
    options = {"postgres": postgres, "namespace": namespace, "group": group}
    of_group = resolve(options).value("group")

    async def question(connection: Connection, namespace: str) -> list[PositionSet]:
        from engine.reading import set_positions  # noqa: PLC0415 - needs an extra to be installed

        return await set_positions(
            connection,
            namespace,
            topic,
            None if partition == ALL else int(partition),
            position,
            who=whoever(who),
            why=reason,
            group=of_group,
            cluster=cluster,
        )

    done = ask_store(options, question)
    if json:
        print_json(done if partition == ALL else done[0])
        return
    for one in done:
        say(f"{one.topic}/{one.partition} of {one.group} goes on at {one.new}; it was at {one.old}.")


def _settings(postgres: str | None, kafka: str | None, namespace: str | None) -> Settings:
    options = {"postgres": postgres, "kafka": kafka, "namespace": namespace}
    return resolve(options)
