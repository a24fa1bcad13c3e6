"""Objects that cannot be compared, or not be hashed, given where a definition wants a name: each is a mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from statemachines import Defer, OrderBy, Topic, has_tag, in_state
from statemachines.validation import find_mistakes, find_mistakes_across
from tests.unit.mistaken import Asked, Ended, Flow, right, state_of


class NotCompared:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("it is compared")

    __hash__ = object.__hash__


class NotHashed:
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        raise RuntimeError("it is hashed")


class Neither:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("it is compared")

    def __hash__(self) -> int:
        raise RuntimeError("it is hashed")


def policy(flow: Flow, event: Any = Ended, **decisions: Any) -> Flow:
    flow.policy(event, **decisions)
    return flow


def opened(flow: Flow, add: Callable[[Any], object]) -> Flow:
    add(state_of(flow, "open"))
    return flow


GIVEN: dict[str, Callable[[Any], Flow]] = {
    **{
        name: lambda junk, name=name: right(**{name: junk})  # type: ignore[misc]  # a default of a lambda
        for name in ("unexpected", "no_run", "closed", "on_error", "timers", "version", "name", "topics")
    },
    **{
        f"topic.{one.name}": lambda junk, name=one.name: right(topics=[Topic(**{"name": "t", name: junk})])  # type: ignore[misc]
        for one in fields(Topic)
    },
    "topic": lambda junk: right(topics=[junk, "t", junk]),
    "ttl": lambda junk: right(unexpected=Defer(junk)),
    "then": lambda junk: right(unexpected=Defer(timedelta(1), then=junk)),
    "policy.event": lambda junk: policy(right(), event=junk, unexpected="ignore"),
    "policy.unexpected": lambda junk: policy(right(), unexpected=junk),
    "policy.closed": lambda junk: policy(right(), closed=junk),
    "policy.duplicate_by": lambda junk: policy(right(), duplicate_by=[junk]),
    "policy.order_by": lambda junk: policy(right(), order_by=junk),
    **{
        f"order_by.{one.name}": lambda junk, name=one.name: policy(  # type: ignore[misc]
            right(), order_by=OrderBy(**{"by": "name", name: junk})
        )
        for one in fields(OrderBy)
    },
    "order_by.scope.of": lambda junk: policy(right(), order_by=OrderBy("name", scope=(junk,))),
    "state.policy": lambda junk: opened(right(), lambda state: state.policy(unexpected=junk)),
    "state.policy.event": lambda junk: opened(right(), lambda state: state.policy(junk, unexpected="ignore")),
    "state.on": lambda junk: opened(right(), lambda state: state.on(junk)),
    "state.to": lambda junk: opened(right(), lambda state: state.on(Asked, to=junk)),
    "state.to.of": lambda junk: opened(right(), lambda state: state.on(Asked, to=[junk, "done"])),
    "state.in_state": lambda junk: opened(right(), lambda state: state.on(Asked, when=in_state(junk))),
    "state.has_tag": lambda junk: opened(right(), lambda state: state.on(Asked, when=has_tag(junk))),
    "state.after": lambda junk: opened(right(), lambda state: state.after(junk, to="done")),
}


@pytest.mark.parametrize(
    "junk", [NotCompared(), NotHashed(), Neither()], ids=lambda junk: type(junk).__name__
)
@pytest.mark.parametrize("add", GIVEN.values(), ids=GIVEN)
def test_it_is_a_mistake_and_never_raises(add: Callable[[Any], Flow], junk: Any) -> None:
    flow = add(junk)
    found = find_mistakes(flow)
    assert found
    assert all(mistake.message and mistake.cure and str(mistake) for mistake in found)
    others = right("other", topics=[Topic("t")]), right("other", topics=[Topic("t")], version=2)
    assert len(find_mistakes_across([flow, *others])) >= len(found)
    assert find_mistakes_across([*others, flow])
