"""``send``, ``pause``, ``resume``, ``cancel``: what an operator does to runs, as events in their logs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from engine.cli.arguments import check_conditions, check_one_of, check_run, check_text, read_data
from engine.cli.asking import Pipeline, ask_store, find_address, whoever
from engine.cli.failures import FAILED
from engine.cli.many import Asks, do_to_many, ends_with, print_many
from engine.cli.options import Json, Namespace, Postgres, Who
from engine.cli.output import print_json, say, short_time
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.reading import Chosen, Done, PausedPipeline
    from engine.reading.choosing import WhatOfMany
    from engine.reading.operating import What, WhatOfPipeline
    from engine.store.connecting import Connection

PANEL = "Decisions"
WORDS = "[PIPELINE KEY] TYPE [DATA]"
ONLY_WITH_FILTERS = "--dry-run and --yes are for runs that filters choose."
_OF_PIPELINES: Mapping[What, WhatOfPipeline] = {"pause": "pause", "resume": "resume"}
"""What is done to a whole pipeline where that is all that filters say."""

Reason = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the run's log.", show_default=False),
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="How long to wait for an engine to do it; else it ends with 1.",
    ),
]

Run = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PIPELINE] KEY",
        help="The run; its pipeline must be named where several have a run of that key.",
        show_default=False,
    ),
]
Status = Annotated[
    str | None, typer.Option("--status", metavar="NAME", help="Only of this status, as of runs.")
]
State = Annotated[
    str | None, typer.Option("--state", metavar="NAME", help="Only those that are in this state.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="NAME=VALUE",
        help="Only with this value of a search attribute; given several times, all must hold.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Count the runs that filters choose, and do nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before it is done to all that filters choose.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=PANEL, cls=_InWords)(send)
    for command in (pause, resume, cancel):
        app.command(rich_help_panel=PANEL)(command)


class _InWords(TyperCommand):
    """Its usage is in the words of its argument; else they were told to be one thing that may be repeated."""

    def collect_usage_pieces(self, *_: Any) -> list[str]:
        """As they are to be written."""
        return [str(self.options_metavar), WORDS]


def send(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=WORDS,
            help="The run, which need not be there; the event's type; its data, in JSON: - reads standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    reason: Reason,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="The event's id: sent again under it, it is a duplicate. \\[default: one of its own]",
            show_default=False,
        ),
    ] = None,
    pipeline: Pipeline = None,
    status: Status = None,
    state: State = None,
    where: Where = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Send an event to a run, or one that begins a run, as if it came from a topic; and tell what became of it.

    Its source is /pointsman/NAMESPACE/operators. What the run does not take meets the pipeline's policies, and what
    fails holds the run, like any event; but data that is not valid is refused, and holds nothing. Ends with 2 then, and
    with 1 where it became another dead letter, or no engine has taken it in time. Instead of one run, filters choose
    all that go on or are held: TYPE [DATA] is sent to each, with its key, as a text, in the field of the data that the
    event's key is read from, where there is none. It ends with 2 then where the data is valid for none of them.
    """
    options = {"postgres": postgres, "namespace": namespace}
    filters = Filters(pipeline, status, state, where or [], dry_run=dry_run, yes=yes)
    check_text("--reason", reason)
    check_text("--who", who)
    given = [*(words or [])]
    before = 0 if filters.are_given else 2
    if not before < len(given) <= before + 2:
        one = "TYPE [DATA], with filters such as --state, or PIPELINE KEY TYPE [DATA]"
        raise UsageError(f"Say what to send: {one}; these are {len(given)} words.")
    if not filters.are_given and (dry_run or yes):
        raise UsageError(ONLY_WITH_FILTERS)
    event_type, *more = given[before:]
    data = read_data(more[0]) if more else None

    async def send_to(chosen: list[Chosen], connection: Connection, namespace: str) -> list[Done]:
        from engine.reading import end_told, send_to_runs, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        asked = await send_to_runs(
            connection,
            namespace,
            chosen,
            event_type,
            data,
            who=whoever(who),
            why=reason,
            event_id=event_id,
        )
        became = await wait_until_done(connection, namespace, asked, seconds=wait)
        await end_told(connection, became, who=whoever(who))
        return became

    async def check(chosen: list[Chosen], connection: Connection, namespace: str) -> None:
        from engine.reading.choosing import data_for_runs  # noqa: PLC0415 - needs an extra to be installed

        await data_for_runs(connection, namespace, chosen, event_type, data)

    async def question(connection: Connection, namespace: str) -> Done:
        from engine.reading import ask_send, end_told, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        name, key = given[:before]
        asked = await ask_send(
            connection,
            namespace,
            name,
            key,
            event_type,
            data,
            who=whoever(who),
            why=reason,
            event_id=event_id,
        )
        (done,) = await wait_until_done(connection, namespace, [asked], seconds=wait)
        await end_told(connection, [done], who=whoever(who))
        return done

    if filters.are_given:
        return _to_many("send", filters, options, json, send_to, check)
    found = ask_store(options, question)
    if json:
        print_json(found)
    else:
        say(f"{found.asked.event_id}: {found.sentence}")
    return ends_with([found])


def pause(
    run: Run = None,
    *,
    reason: Reason,
    pipeline: Pipeline = None,
    status: Status = None,
    state: State = None,
    where: Where = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Hold a run: what comes for it waits, in its order, and its timers do not fire, until it is resumed.

    Of one run at most 1,000 events wait; what comes beyond that is a dead letter. Ends with 1 where the run cannot be
    paused, as one that a dead letter holds. Instead of one run, filters choose all that are running. --pipeline alone
    pauses the pipeline: each run of it for which something comes, and those that would begin, until it is resumed;
    other pipelines that read the same topics go on.
    """
    options = {"postgres": postgres, "namespace": namespace}
    filters = Filters(pipeline, status, state, where or [], dry_run=dry_run, yes=yes)
    return ask_runs("pause", run or [], filters, reason, whoever(who), wait, options, json)


def resume(
    run: Run = None,
    *,
    reason: Reason,
    pipeline: Pipeline = None,
    status: Status = None,
    state: State = None,
    where: Where = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """Let a run go on that is paused: first with what waited, then with what has fallen due.

    Ends with 1 where something else holds the run, as a dead letter does. Instead of one run, filters choose all that
    are paused. --pipeline alone resumes the pipeline: what has waited for its runs since it was paused goes on, run by
    run. Runs that were paused for themselves stay so.
    """
    options = {"postgres": postgres, "namespace": namespace}
    filters = Filters(pipeline, status, state, where or [], dry_run=dry_run, yes=yes)
    return ask_runs("resume", run or [], filters, reason, whoever(who), wait, options, json)


def cancel(
    run: Run = None,
    *,
    reason: Reason,
    pipeline: Pipeline = None,
    status: Status = None,
    state: State = None,
    where: Where = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    who: Who = None,
    wait: Wait = 10.0,
    postgres: Postgres = None,
    namespace: Namespace = None,
    json: Json = False,
) -> int:
    """End a run, whatever holds it: by the transition that its pipeline has for that, or where it is.

    Where the pipeline has none, a run that owes something is not ended: what its steps have done would never be undone.
    What fell due for it does not come any more, and what waited for it meets the policy for events of ended runs. Ends
    with 1 where the run has ended already, other than by being cancelled, and where an action of the transition fails.
    Instead of one run, filters choose all that have not ended.
    """
    options = {"postgres": postgres, "namespace": namespace}
    filters = Filters(pipeline, status, state, where or [], dry_run=dry_run, yes=yes)
    return ask_runs("cancel", run or [], filters, reason, whoever(who), wait, options, json)


@dataclass(frozen=True, slots=True)
class Filters:
    """By what runs are chosen, and whether it is only counted, or asked before."""

    pipeline: str | None
    status: str | None
    state: str | None
    where: list[str]
    dry_run: bool
    yes: bool

    @property
    def are_given(self) -> bool:
        """Whether any of them is."""
        return bool(self.where) or any(one is not None for one in (self.pipeline, self.status, self.state))

    @property
    def is_whole_pipeline(self) -> bool:
        """Whether nothing else is asked of its runs."""
        return not self.where and self.status is None and self.state is None


def ask_runs(
    what: What,
    words: list[str],
    filters: Filters,
    reason: str,
    who: str,
    wait: float,
    options: dict[str, str | None],
    json: bool,
    result: bytes | None = None,
) -> int:
    """Ask something of one run, or of all that filters choose, and tell what became of it.

    ``result`` is for ``resolve``.
    """
    check_text("--reason", reason)
    check_text("--who", who)
    if filters.are_given and words:
        raise UsageError("Give a run or filters, not both.")
    of_pipeline = _OF_PIPELINES.get(what)
    if of_pipeline is not None and filters.pipeline is not None and filters.is_whole_pipeline:
        if filters.dry_run:
            return _look_at_pipeline(of_pipeline, filters.pipeline, options, json)
        return _ask_of_pipeline(of_pipeline, filters.pipeline, reason, who, wait, options, json)
    if filters.are_given:
        return _ask_of_many(what, filters, reason, who, wait, options, json, result)
    if not words:
        raise UsageError(f"Say which to {what}: [PIPELINE] KEY, or a filter such as --state.")
    check_run(words)
    if filters.dry_run or filters.yes:
        raise UsageError(ONLY_WITH_FILTERS)

    async def question(connection: Connection, namespace: str) -> list[Done]:
        from engine.reading import ask_of_run, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        address = await find_address(connection, namespace, words)
        asked = await ask_of_run(connection, namespace, what, *address, who=who, why=reason, result=result)
        return await wait_until_done(connection, namespace, [asked], seconds=wait)

    became = ask_store(options, question)
    if json:
        print_many(what, len(became), became, dry_run=False)
    else:
        for one in became:
            say(one.sentence)
    return 0 if all(one.done for one in became) else FAILED


def _ask_of_pipeline(
    what: WhatOfPipeline,
    pipeline: str,
    reason: str,
    who: str,
    wait: float,
    options: dict[str, str | None],
    json: bool,
) -> int:
    async def question(connection: Connection, namespace: str) -> list[Done]:
        from engine.reading import ask_of_pipeline, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        asked = await ask_of_pipeline(connection, namespace, what, pipeline, who=who, why=reason)
        return await wait_until_done(connection, namespace, [asked], seconds=wait)

    became = ask_store(options, question)
    if json:
        print_many(what, 0, became, dry_run=False)
    else:
        say(became[0].sentence)
    return 0 if became[0].done else FAILED


def _look_at_pipeline(what: WhatOfPipeline, pipeline: str, options: dict[str, str | None], json: bool) -> int:
    """Say what would be done to a pipeline."""

    async def question(connection: Connection, namespace: str) -> list[PausedPipeline]:
        from engine.reading import list_pauses  # noqa: PLC0415 - needs an extra to be installed
        from engine.reading.operating import number_of  # noqa: PLC0415 - needs an extra to be installed

        await number_of(connection, namespace, pipeline)
        return await list_pauses(connection, namespace, pipeline=pipeline)

    pauses = ask_store(options, question)
    if json:
        print_many(what, 0, [], dry_run=True)
    elif what == "resume":
        say(_would_resume(pipeline, pauses))
    else:
        say(_would_pause(pipeline, pauses))
    return 0


def _would_resume(pipeline: str, pauses: list[PausedPipeline]) -> str:
    if not pauses:
        return f"{pipeline} is not paused: nothing would be done."
    return f"{pipeline} would go on, {_paused(pauses[0])}. Runs that are paused for themselves would stay so."


def _would_pause(pipeline: str, pauses: list[PausedPipeline]) -> str:
    if pauses:
        return f"{pipeline} is paused already, {_paused(pauses[0])}: nothing would be done."
    return f"{pipeline} would be paused, with all of its runs, and those to come."


def _paused(pause: PausedPipeline) -> str:
    return f"which {pause.who} has paused at {short_time(pause.at)} ({pause.why})"


def _ask_of_many(
    what: What,
    filters: Filters,
    reason: str,
    who: str,
    wait: float,
    options: dict[str, str | None],
    json: bool,
    result: bytes | None,
) -> int:
    async def do(chosen: list[Chosen], connection: Connection, namespace: str) -> list[Done]:
        from engine.reading import ask_of_runs, wait_until_done  # noqa: PLC0415 - needs an extra to be installed

        asked = await ask_of_runs(connection, namespace, what, chosen, who=who, why=reason, result=result)
        return await wait_until_done(connection, namespace, asked, seconds=wait)

    return _to_many(what, filters, options, json, do)


def _to_many(
    what: WhatOfMany,
    filters: Filters,
    options: dict[str, str | None],
    json: bool,
    do: Callable[[list[Chosen], Connection, str], Awaitable[list[Done]]],
    check: Callable[[list[Chosen], Connection, str], Awaitable[None]] | None = None,
) -> int:
    """``check`` raises where it cannot be done to those that are chosen, also where they are only counted."""
    from engine.reading.runs import STATUSES  # noqa: PLC0415 - needs an extra to be installed

    check_one_of("status", filters.status, STATUSES)
    conditions = check_conditions(filters.where)
    asks = Asks(what, filters.dry_run, filters.yes, json)
    asks.check()

    async def choose(connection: Connection, namespace: str) -> list[Chosen]:
        from engine.reading import choose_runs  # noqa: PLC0415 - needs an extra to be installed

        asked = {"pipeline": filters.pipeline, "status": filters.status, "state": filters.state}
        chosen = await choose_runs(connection, namespace, what, **asked, where=conditions)
        if check is not None:
            await check(chosen, connection, namespace)
        return chosen

    return do_to_many(asks, options, choose, do)
