"""``run``: the engine for production."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from engine.cli import logs
from engine.cli.definitions import compile_all, load_executors
from engine.cli.failures import INTERRUPTED
from engine.cli.options import ExecutorsOf, Group, Kafka, Modules, Namespace, Postgres, resolve
from engine.limits import limits_told
from engine.setting_kinds import KINDS, LIMIT
from engine.settings import Settings, strange_variables

if TYPE_CHECKING:
    from engine.assembly import EngineSettings
    from engine.last_resort import LastResort
    from engine.running import ExitReason, Running
    from engine.steps.executors import ByClass
    from statemachines.machine import Machine

log = logging.getLogger("pointsman.engine")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Engines", cls=_WithLimits)(run)


class _WithLimits(TyperCommand):
    """Its help has the limits of the engine behind the options."""

    def format_help(self, *args: Any, **kwargs: Any) -> Any:
        """Write all of it."""
        told = limits_told()
        limits = [kind for kind in KINDS.values() if kind.name.startswith(LIMIT)]
        lines = [
            f"[bold]{one.variable}[/] \\[{one.default}] {told[one.name.removeprefix(LIMIT)]}"
            for one in limits
        ]
        self.epilog = "\n\n".join(["Limits, as environment variables, with their defaults:", *lines])
        return super().format_help(*args, **kwargs)


def run(
    modules: Modules,
    *,
    postgres: Postgres = None,
    kafka: Kafka = None,
    namespace: Namespace = None,
    group: Group = None,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance",
            metavar="NAME",
            help="Static membership: restarted, it keeps its partitions. Or POINTSMAN_INSTANCE.",
        ),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="earliest|latest|TIME",
            help="Where to begin on topics that this group has not read yet. Or POINTSMAN_FROM.",
        ),
    ] = None,
    executors: ExecutorsOf = None,
    until_idle: Annotated[
        bool,
        typer.Option(
            "--until-idle",
            help="End once all that is in the topics now is read, committed and published, what runs have sent to one "
            "another is taken, and their steps are done.",
        ),
    ] = False,
    port: Annotated[
        str | None,
        typer.Option(
            "--port",
            metavar="PORT",
            help="Serve /healthz, /readyz and /metrics; 0 takes a free port. Or POINTSMAN_HEALTH_PORT.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Where that port is, such as 0.0.0.0 in a container. Or POINTSMAN_HEALTH_HOST. "
            "\\[default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[
        str | None,
        typer.Option(
            "--log-format", metavar="auto|text|json", help="auto is JSON lines where there is no terminal."
        ),
    ] = None,
) -> int:
    """Run pipelines: an engine for production, on your Kafka and your Postgres.

    Ends with 0 when it is stopped by SIGTERM or Ctrl-C, within ten seconds, also while a handler is at work: what is
    not committed then is left to the next engine. More load needs more of them, with the same options.
    Every limit of the engine is a variable POINTSMAN_LIMIT_..., and stands below; `pointsman config --limits` shows
    those in force.
    """
    settings = resolve(
        {
            "postgres": postgres,
            "kafka": kafka,
            "namespace": namespace,
            "group": group,
            "instance": instance,
            "executors": executors,
            "from": first,
            "health_port": port,
            "health_host": host,
            "log_format": log_format,
        }
    )
    begin_logging(settings)
    for_engine = settings.for_engine()
    machines = compile_all(modules, settings.namespace)
    known = load_executors(settings.value("executors"))
    reason = in_loop(for_engine, machines, until_idle=until_idle, executors=known)
    for sentence in reason.reasons:
        log.error("%s", sentence)
    log.info("ended: %s", reason.ending.value)
    return reason.exit_code


def begin_logging(settings: Settings, *, with_messages: bool = False) -> None:
    """As the settings say; on the level debug, and where it is asked for, with what exceptions of user code say."""
    level = settings.value("log_level") or "info"
    asked = with_messages or level.lower() == "debug"
    logs.configure(settings.value("log_format") or "auto", level, with_messages=asked)
    for sentence in strange_variables(os.environ, only_slips=True):
        log.warning("%s", sentence)


def in_loop(
    settings: EngineSettings,
    machines: list[Machine],
    *,
    until_idle: bool = False,
    create_sources: bool = False,
    executors: ByClass | None = None,
) -> ExitReason:
    """Run an engine in an event loop of its own, until it ends or a signal ends it."""
    from engine.last_resort import LastResort  # noqa: PLC0415 - needs an extra
    from engine.running import Ending, ExitReason, new_loop, run, tune  # noqa: PLC0415 - needs an extra
    from engine.topics import source_topics  # noqa: PLC0415 - as above
    from engine.watching import Watched, watching  # noqa: PLC0415 - as above

    async def serve(watched: Watched) -> ExitReason:
        signals = Signals(last_resort)

        def began(running: Running) -> None:
            signals.stop = running.stop
            log.info(
                "reading %s as group %s; Ctrl-C or SIGTERM ends it in order",
                ", ".join(source_topics(machines)) or "no topic",
                settings.group_name,
            )

        tune()
        try:
            return await run(
                settings,
                machines,
                until_idle=until_idle,
                create_sources=create_sources,
                observer=watched,
                beat=watched.beat,
                began=began,
                executors=executors,
            )
        except asyncio.CancelledError:
            return ExitReason(Ending.STOPPED)

    last_resort = LastResort()
    with (
        watching(
            settings.postgres,
            settings.limits.handler_seconds_max,
            as_json=logs.is_json(),
            asked=last_resort.asked,
        ) as watched,
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        return runner.run(serve(watched))


class Signals:
    """Turns SIGTERM and Ctrl-C into a call of ``stop``; a second one, or time, ends the process at once.

    Until ``stop`` is known, whatever the task is doing that made this object is cancelled.
    """

    def __init__(self, last_resort: LastResort) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.stop: Callable[[], object] = task.cancel
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
            last_resort.begin_by(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._asked:
            os._exit(INTERRUPTED)
        self._asked = True
        log.info("%s: finishing the batch", number.name)
        self.stop()
