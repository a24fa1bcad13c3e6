"""A context that was read back goes to the next who reads the same bytes, and to nobody else."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

import orjson
import pytest
from pydantic import Field

from connectors.encode import STRUCTURED_HEADERS, encode_structured
from connectors.source import Partition, RawRecord
from engine.observing import Silent
from engine.routing import Loaded, make_routes
from engine.session.claims import Claim, Slice
from engine.session.committer import Committer
from statemachines import Context, Pipeline
from statemachines.contexts import read, write
from statemachines.interpreter import step
from statemachines.limits import KEPT_BYTES_MAX, KEPT_CONTEXTS_MAX, KEPT_PAUSE_CONTEXTS
from statemachines.machine import Machine, compile_pipeline
from statemachines.outcome import Moved
from statemachines.run import Run
from tests.fakes.store import FakeStore
from tests.fakes.tables import Tables
from tests.hoarder import TOPIC, Book, hoarder, spoil
from tests.unit.machines import Noted, Opened, begun, occurrence


class Notes(Context):
    texts: list[str] = Field(default_factory=list)


had: list[Notes] = []


def note(context: Notes, event: Noted) -> None:
    had.append(context)
    context.texts.append(event.text)


def is_short(context: Notes, event: Noted) -> bool:
    context.texts.append("what a guard leaves is no part of the context")
    return len(event.text) < 100


@pytest.fixture
def machine() -> Machine:
    had.clear()
    flow = Pipeline("notes", Notes, topics=["notes"])
    flow.state("only", initial=True).on(Noted, when=is_short, do=note)
    flow.start(Opened, lambda _event: Notes())
    return compile_pipeline(flow)


def noting(machine: Machine, run: Run, text: str) -> Run:
    outcome = step(machine, run, occurrence(Noted(text=text), digest=text.encode().ljust(8)))
    assert isinstance(outcome, Moved)
    assert outcome.context is not None
    return run._replace(context=outcome.context)


def texts_of(run: Run) -> list[str]:
    return Notes.model_validate_json(run.context).texts


def test_what_a_handler_does_to_a_context_later_is_not_seen(machine: Machine) -> None:
    run = begun(machine, Opened(name="acme"))
    for text in ("one", "two", "three"):
        run = noting(machine, run, text)
        for context in had:
            context.texts.append("too late")
    guard = "what a guard leaves is no part of the context"
    assert texts_of(run) == [guard, "one", guard, "two", guard, "three"]


def test_two_who_read_the_same_bytes_do_not_share_a_context(machine: Machine) -> None:
    run = noting(machine, begun(machine, Opened(name="acme")), "one")
    first, second = noting(machine, run, "two"), noting(machine, run, "two")
    assert first.context == second.context
    assert len({id(context) for context in had}) == 3
    contexts = [read(machine, first.context) for _ in range(3)]
    assert len({id(context) for context in contexts}) == 3
    assert contexts[0] == contexts[1] == contexts[2] == Notes.model_validate_json(first.context)


def test_what_was_read_back_is_read_once(machine: Machine) -> None:
    context = Notes(texts=["a"])
    machine.kept.keep(b"{}", context)
    assert read(machine, b"{}") is context
    assert read(machine, b"{}") is not context
    written = write(machine, context, None)
    assert len(machine.kept.contexts) == 1
    assert read(machine, written) is not context, "it is what was read back, not what was written"
    assert len(machine.kept.contexts) == 0


def test_few_and_small_ones_are_kept(machine: Machine) -> None:
    for number in range(KEPT_CONTEXTS_MAX):
        write(machine, Notes(texts=[str(number)]), None)
        assert len(machine.kept.contexts) == number + 1
    write(machine, Notes(texts=["x" * KEPT_BYTES_MAX]), None)
    assert len(machine.kept.contexts) == KEPT_CONTEXTS_MAX
    write(machine, Notes(texts=["one more"]), None)
    assert len(machine.kept.contexts) == 0


def test_none_are_kept_for_a_while_where_hardly_any_is_read_again(machine: Machine) -> None:
    for number in range(KEPT_CONTEXTS_MAX + 1 + KEPT_PAUSE_CONTEXTS):
        write(machine, Notes(texts=[str(number)]), None)
    assert not machine.kept.contexts
    for number in range(10):
        write(machine, Notes(texts=[str(number)]), None)
    assert len(machine.kept.contexts) == 10


def test_they_are_kept_on_where_they_are_read_again(machine: Machine) -> None:
    for number in range(2 * KEPT_CONTEXTS_MAX):
        written = write(machine, Notes(texts=[str(number)]), None)
        if number % 2:
            read(machine, written)
    assert not machine.kept.pausing


@pytest.mark.parametrize("chart", [False, True])
async def test_what_functions_do_to_contexts_that_they_have_kept_changes_no_run_of_an_engine(
    *, chart: bool
) -> None:
    store = FakeStore(Tables())
    compiled = compile_pipeline(hoarder(chart=chart))
    pipeline = await store.register_pipeline(compiled.name)
    definition = await store.register_definition(pipeline, 1, b"h", b"c", b"{}")
    topics = make_routes([Loaded(compiled, pipeline, definition)], {})
    now = functools.partial(datetime.now, UTC)
    committer = Committer(store, topics, "c", now, now, Silent(), [0, 0, 0, 0])
    place = Partition(TOPIC, 0)
    await store.add_positions({place: 0})
    [(number, _, position, epoch, _)] = await store.take_positions([place])
    claim, texts = Claim(number, place, epoch, position), ["one", "two", "three"]
    for offset, text in enumerate(["", *texts]):
        data = {"book": "b", "text": text}
        value = encode_structured(
            id=str(offset),
            source="/shelf",
            type="book.noted" if text else "book.opened",
            data=orjson.dumps(data),
        )
        record = RawRecord(TOPIC, 0, offset, 0, b"b", value, STRUCTURED_HEADERS)
        await committer.commit(await committer.prepare([Slice(claim, [record], offset, offset + 1)], None))
        spoil()
    [route] = topics[TOPIC].routes
    [stored] = await store.load_runs(pipeline, ["b"])
    assert stored.context == route.cache["b"].context
    assert Book.model_validate_json(stored.context) == Book(texts=texts, count=len(texts))
