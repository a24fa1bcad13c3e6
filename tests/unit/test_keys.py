"""Keys: of one field, of fields within fields, of several, and by a function; and what a pipeline says of them."""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import given as any_of
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field

from connectors.source import RawRecord
from engine.batch.batch import Batch
from engine.routing import Loaded, TopicRoute, make_routes
from engine.watchdog import find_handler
from statemachines import Context, Event, Pipeline, Topic
from statemachines.canonical import canonical_bytes
from statemachines.codehash import code_hash
from statemachines.events import KeyBy
from statemachines.handlers import HandlerError
from statemachines.keys import KeyFields, how_keyed, key_of
from statemachines.machine import compile_pipeline
from statemachines.outcome import Reason
from statemachines.testkit import given
from tests.unit.mistaken import Begun, Ended, Flow, right, the_mistake

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Object(BaseModel):
    key: str
    size: int = 0
    tags: list[str] = []
    version: str = Field(default="", alias="versionId")
    several: str = Field(default="", validation_alias=AliasChoices("one", "other"))


class Stored(Event, type="stored"):
    tenant: str = ""
    number: int = Field(default=0, alias="no")
    bucket: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies defaults
    object: Object | None = None
    dotted: str = Field(default="", alias="a.b")
    weights: list[float] = []  # noqa: RUF012 - the same


def keyed(by: KeyBy, data: Any, otherwise: str | None = "kafka") -> str | None:
    return key_of(how_keyed(Stored, by), data, otherwise)


DATA = {
    "tenant": "t/1",
    "no": 7,
    "bucket": {"name": "b", "tags": ["x", "y"]},
    "object": {"key": "k", "versionId": "v%2F"},
}


@pytest.mark.parametrize(
    ("by", "key"),
    [
        ("tenant", "t/1"),
        ("number", "7"),
        ("bucket.name", "b"),
        ("bucket.tags.1", "y"),
        ("object.key", "k"),
        ("object.version", "v%2F"),
        (("tenant",), "t/1"),
        (("tenant", "number"), "t%2F1/7"),
        (("object.version", "tenant", "bucket.name"), "v%252F/t%2F1/b"),
        ("bucket.tags", None),
        ("bucket.name.more", None),
        ("bucket.tags.9", None),
        ("bucket.none", None),
        (("tenant", "bucket.none"), None),
        (("tenant", "bucket"), None),
        (lambda data: data["tenant"] + "!", "t/1!"),
        (lambda data: data["no"], "7"),
        (lambda data: None, None),
        (lambda data: "", None),
    ],
)
def test_a_key_is_read_as_it_is_named(by: KeyBy, key: str | None) -> None:
    assert keyed(by, DATA) == key


@pytest.mark.parametrize("data", [None, [], "text", 5])
@pytest.mark.parametrize("by", ["tenant", "bucket.name", ("tenant", "number"), lambda data: "always"])
def test_data_that_is_no_object_has_no_key(by: KeyBy, data: Any) -> None:
    assert keyed(by, data) is None


def test_a_field_whose_own_name_has_a_dot_is_found_first() -> None:
    assert keyed("bucket.name", {"bucket.name": "whole", "bucket": {"name": "part"}}) == "whole"
    assert keyed("a.b", {"a.b": "whole", "a": {"b": "part"}}) == "whole"
    assert keyed(("tenant", "bucket.name"), {"tenant": "t", "bucket.name": "whole"}) == "t/whole"
    assert keyed(("number", "tenant"), {"number": "not its name", "no": 7, "tenant": "t"}) == "7/t"


parts = st.text(st.sampled_from("ab/%25F"), min_size=1, max_size=6)


@any_of(st.tuples(parts, parts), st.tuples(parts, parts))
def test_different_parts_never_make_the_same_key(some: tuple[str, str], others: tuple[str, str]) -> None:
    first, second = (
        keyed(("tenant", "bucket.name"), {"tenant": tenant, "bucket": {"name": name}})
        for tenant, name in (some, others)
    )
    assert first is not None
    assert (first == second) == (some == others)
    assert first.count("/") == 1


class UnshowableError(BaseException):
    def __str__(self) -> str:
        raise ValueError("no")


def raising(error: BaseException) -> Callable[[Any], str]:
    def by_customer(data: Any) -> str:
        raise error

    return by_customer


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (raising(KeyError("customer")), "by_customer raised KeyError: 'customer' ("),
        (raising(SystemExit(3)), "by_customer raised SystemExit: 3"),
        (raising(KeyboardInterrupt()), "by_customer raised KeyboardInterrupt"),
        (raising(asyncio.CancelledError()), "by_customer raised CancelledError"),
        (raising(UnshowableError()), "by_customer raised UnshowableError: (its message cannot be shown)"),
        (lambda data: 1.5, "returned float; a key is text or a whole number, or None"),
        (lambda data: True, "returned bool; a key is"),
        (lambda data: ["a"], "returned list; a key is"),
        (lambda data: 10**5_000, "ValueError"),
    ],
)
def test_whatever_a_function_does_wrong_is_told_by_its_name(by: KeyBy, sentence: str) -> None:
    with pytest.raises(HandlerError) as raised:
        keyed(by, DATA)
    assert raised.value.reason is Reason.NO_KEY
    assert sentence in str(raised.value)
    assert str(raised.value).isprintable()


# What a pipeline says of it


class Kept(Context):
    name: str = ""


class Opened(Event, type="opened", key="account"):
    account: str
    customer: str = ""


def build(event: Opened) -> Kept:
    return Kept(name=event.customer)


def of_customer(data: dict[str, Any]) -> str:
    name: str = data.pop("customer")
    return name.lower()


def accounts(name: str = "accounts", by: KeyBy | None = None) -> Pipeline[Kept]:
    flow = Pipeline(name, Kept, topics=[Topic("accounts", unknown="ignore")])
    flow.state("open", initial=True)
    flow.start(Opened, build)
    if by is not None:
        flow.key(Opened, by=by)
    return flow


def route(*flows: Pipeline[Any]) -> TopicRoute:
    loaded = [Loaded(compile_pipeline(one), number, number) for number, one in enumerate(flows, 1)]
    return make_routes(loaded, {})["accounts"]


def opened(data: Any, offset: int = 0) -> RawRecord:
    return RawRecord("accounts", 0, offset, 0, b"kafka", orjson.dumps({"type": "opened", **data}), ())


def met(topic: TopicRoute, *records: RawRecord, **strikes: Any) -> Batch:
    batch = Batch(NOW, itertools.count(1), "here", [0, 0, 0, 0])
    batch.strikes = strikes.get("strikes", {})
    batch.read(records, 1, topic)
    batch.meet(batch.arrivals)
    batch.finish()
    return batch


def test_several_pipelines_on_a_topic_have_keys_of_their_own() -> None:
    topic = route(accounts(), accounts("customers", of_customer), accounts("both", ("account", "customer")))
    batch = met(topic, opened({"account": "a1", "customer": "Ann"}))
    assert not batch.commit.dead_letters
    assert {one.name: list(one.cache) for one in topic.routes} == {
        "accounts": ["a1"],
        "customers": ["ann"],
        "both": ["a1/Ann"],
    }
    contexts = {run.context for one in topic.routes for run in one.cache.values()}
    assert contexts == {b'{"name":"Ann"}'}, "what a key function does to the data is seen by nobody"


def test_the_newest_version_says_how_events_are_keyed_for_the_runs_of_all() -> None:
    first, second = accounts(by="customer"), accounts()
    second.version = 2
    loaded = [Loaded(compile_pipeline(one), 1, number) for number, one in enumerate((second, first), 1)]
    topic = make_routes(loaded, {})["accounts"]
    met(topic, opened({"account": "a1", "customer": "Ann"}))
    assert list(topic.routes[0].cache) == ["a1"]


@pytest.mark.parametrize(
    ("by", "data", "sentence"),
    [
        (of_customer, {}, "of_customer raised KeyError: 'customer'"),
        (lambda data: None, {}, "<lambda>, which Opened names as the key, returned None"),
        (lambda data: "x" * 1_025, {}, "longer than 1024 bytes"),
        (lambda data: "\0", {}, "<lambda>"),
        (("account", "customer"), {"account": "a"}, "the fields 'account', 'customer' of the data"),
        ("customer", {}, "the field 'customer' of the data, which Opened names as the key"),
    ],
)
def test_an_event_without_a_key_is_a_dead_letter_that_says_why(by: KeyBy, data: Any, sentence: str) -> None:
    batch = met(route(accounts(by=by)), opened(data), opened({"account": "b", "customer": "Bob"}, 1))
    letter = batch.commit.dead_letters[0]
    assert (letter.reason, letter.run, letter.key, letter.pipeline) == ("no key", None, "kafka", 1)
    assert sentence in letter.error


def test_while_a_key_function_is_called_the_watchdog_sees_which_record_it_is() -> None:
    beat = [0, 0, 0, 0]
    seen: list[list[int]] = []

    def looks(data: Any) -> str:
        seen.append(list(beat))
        return "a"

    batch = Batch(NOW, itertools.count(1), "here", beat)
    batch.read([opened({"account": "a"}, 41)], 7, route(accounts(by=looks)))
    assert seen[0][:2] == [7, 41]
    assert seen[0][2]
    assert not beat[2], "nothing is called any more"


def test_a_key_function_that_never_returned_is_named_and_not_called_again() -> None:
    traced: list[str] = []

    def hangs(data: Any) -> str:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=False)
            file.seek(0)
            traced.append(file.read().decode())
        return "a"

    topic = route(accounts(by=hangs))
    met(topic, opened({"account": "a"}))
    assert find_handler(traced[0]).startswith("hangs (")
    batch = met(topic, opened({"account": "a"}), strikes={(1, 0): (2, "hangs")})
    assert len(traced) == 1
    [letter] = batch.commit.dead_letters
    assert (letter.reason, letter.error) == (
        "handler never returned",
        "hangs did not return, 2 times; each time the engine was ended",
    )
    assert batch.commit.strikes_forgotten == [(1, 0)]


def test_the_test_kit_reads_keys_as_the_engine_does() -> None:
    case = given(accounts(by=("account", "customer")), Opened(account="a/1", customer="Ann"))
    assert case.key == "a%2F1/Ann"
    with pytest.raises(AssertionError, match=r"no key: .*lambda> raised KeyError"):
        given(accounts(by=lambda data: of_customer({})), Opened(account="a"))


# Its identity


def test_how_events_are_keyed_is_part_of_the_structure_where_it_is_said() -> None:
    def keys(flow: Flow) -> Any:
        return orjson.loads(canonical_bytes(flow)).get("keys")

    assert keys(accounts()) is None
    assert keys(accounts(by="customer")) == {"opened": "customer"}
    assert keys(accounts(by=("account", "customer"))) == {"opened": ["account", "customer"]}
    assert keys(accounts(by=of_customer)) == {"opened": {"function": "of_customer"}}
    flow = right()
    flow.start(Event.named("made", key=of_customer), lambda event: None)
    assert orjson.loads(canonical_bytes(flow))["events"]["made"] == {"function": "of_customer"}


def test_what_a_key_function_does_is_part_of_the_code() -> None:
    def cut(data: Any, length: int) -> str:
        return str(data["customer"])[:length]

    assert code_hash(accounts(by=partial(cut, length=1))) != code_hash(accounts(by=partial(cut, length=2)))
    assert code_hash(accounts(by=of_customer)) not in (
        code_hash(accounts()),
        code_hash(accounts(by="customer")),
    )
    classes = [Event.named("opened", key=partial(cut, length=length)) for length in (1, 2)]
    flows = [right(), right()]
    for flow, event in zip(flows, classes, strict=True):
        flow.on(event)
    assert code_hash(flows[0]) != code_hash(flows[1])


# Mistakes


class Typo(Event, type="typo", key=("tenant", "oder_id")):
    tenant: str
    order_id: str


def with_key(by: Any, event: Any = Stored) -> Flow:
    flow = right()
    flow.on(Stored)
    flow.key(event, by=by)
    return flow


@pytest.mark.parametrize(
    ("flow", "message", "cure"),
    [
        (with_key("tennant"), "is 'tennant', but it has no such field", "Did you mean 'tenant'?"),
        (with_key("object.kei"), "is 'object.kei', but 'object' has no such field", "Did you mean 'key'?"),
        (with_key(("tenant", "nr")), "is 'nr', but it has no such field", "Known are"),
        (with_key("tenant.name"), "but the field 'tenant' has no fields in it", "text or a whole number"),
        (with_key("weights"), "'weights', which is neither text nor", "Name a field of type"),
        (with_key("object.tags"), "'object.tags', which is neither text nor", "Name a field of type"),
        (with_key("object.several"), "'several' has more than one alias", "Give it one alias"),
        (with_key(("tenant", "tenant")), "names the field 'tenant' twice", "Name it once"),
        (with_key(()), "is (), which names no field", "a function of the data"),
        (with_key(5), "is 5, which names no field", "a function of the data"),
        (with_key(("tenant", 5)), "which names no field", "a function of the data"),
        (with_key(None), "is None, which names no field", "a function of the data"),
        (with_key(lambda: "x"), "cannot be called with (data)", "Let it take (data)"),
        (with_key("tenant", Typo), "says how Typo is keyed, but never names this class", "Known are"),
        (with_key("tenant", "Stored"), "that of a class of events, not of 'Stored'", "Name a subclass"),
    ],
)
def test_mistakes_with_keys_are_found_with_their_cure(flow: Flow, message: str, cure: str) -> None:
    found = the_mistake(flow)
    assert message in found.message
    assert cure in found.cure
    assert found.place.file == __file__


def test_a_class_that_is_keyed_twice_by_its_pipeline_is_a_mistake() -> None:
    flow = with_key("tenant")
    flow.key(Stored, by="number")
    assert "is said already, by the line at" in the_mistake(flow).message


def test_mistakes_with_the_keys_of_classes_are_found_at_the_class() -> None:
    flow = right()
    flow.on(Typo)
    found = the_mistake(flow)
    assert "the key of Typo is 'oder_id', but it has no such field" in found.message
    assert found.cure == "Did you mean 'order_id'?"


async def awaited(data: Any) -> str:
    return "x"


def test_an_async_key_function_is_a_mistake() -> None:
    assert "the key function awaited is async" in the_mistake(with_key(awaited)).message


def test_what_names_the_classes_is_right() -> None:
    flow = right()
    flow.key(Begun, by="name")
    flow.key(Ended, by=lambda data: data["name"])
    compile_pipeline(flow)
    assert isinstance(how_keyed(Stored, "object.key"), KeyFields)
    assert how_keyed(Stored, "number") == "no"
