"""A file of SCXML as a pipeline.

Where the language differs from the recommendation by choice, the pipeline says what the document means: external
transitions are ``reenter=True``, a name is its pattern (``foo`` is ``foo.*``), ``*`` is with ``error.*``, failures
and events that nothing takes are dropped.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from statemachines import Event, Failed, Pipeline, State, Topic
from statemachines.machine import Machine, compile_pipeline
from tests.scxml.content import (
    START_TYPE,
    TOPIC,
    Block,
    Content,
    Contents,
    Doing,
    Model,
    UntranslatableError,
    children,
    tag,
    told,
)

START = Event.named(START_TYPE)
STATES = ("state", "parallel", "final")
NODES = (*STATES, "history")


@dataclass(eq=False)
class Translated:
    """The pipeline of a document."""

    path: Path
    flow: Pipeline[Model] = field(init=False)
    _root: ET.Element = field(init=False)
    _ids: dict[ET.Element, str] = field(default_factory=dict)
    _states: dict[str, State[Model]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._root = root = ET.parse(self.path).getroot()
        self._contents = Contents(root.get("name", ""), self.path.parent)
        self._late = root.get("binding") == "late"
        self._refuse(root)
        for number, node in enumerate(self._nodes(root)):
            self._ids[node] = node.get("id") or f"{tag(node)}.{number}"
        self.flow = Pipeline(
            "chart",
            Model,
            topics=[Topic(TOPIC, unknown="ignore")],
            on_error="ignore",
            unexpected="ignore",
            closed="ignore",
        )
        self._begin(root)
        for node in self._nodes(root):
            for transition in children(node, "transition"):
                if tag(node) != "history":
                    self._transition(node, transition)

    def machine(self) -> Machine:
        """Compiled without validation, since the charts of suites have states that nothing reaches; and without a hash
        of the code, which takes its time, and nobody asks for."""
        with mock.patch.multiple(
            "statemachines.machine", check=mock.DEFAULT, code_hash=lambda _flow, **_: bytes(32)
        ):
            return compile_pipeline(self.flow)

    def _refuse(self, root: ET.Element) -> None:
        for one in root.iter():
            if isinstance(one.tag, str) and tag(one) in ("invoke", "finalize"):
                raise UntranslatableError("<invoke>")

    def _nodes(self, around: ET.Element) -> Iterator[ET.Element]:
        for child in children(around, *NODES):
            yield child
            yield from self._nodes(child)

    def _begin(self, root: ET.Element) -> None:
        targets = self._initial(root)
        assert targets is not None, "the document has no states"
        for child in children(root, *NODES):
            self._state(child, None, initial=targets == [self._ids[child]])
        declared = [one for one in root.iter() if isinstance(one.tag, str) and tag(one) == "data"]
        own = [one for model in children(root, "datamodel") for one in children(model, "data")]
        bound = [one for one in declared if not self._late or one in own]
        contents = [self._contents.declaration(one) for one in bound]
        block = self._contents.doing(contents)
        script = self._contents.block(children(root, "script"))
        names = [one.attrib["id"] for one in declared]

        def build(_event: Event) -> Model:
            return Model(declared=[*names])

        def begin(model: Model, event: Event) -> list[Any]:
            return [one for do in (block, script) if do for one in do(model, event)]

        self.flow.start(START, build, to=[*targets], do=begin)
        if not any(state.initial and state.parent is None for state in self.flow.states):
            # Where the chart begins is further inside; the start says so.
            self.flow.states[0].initial = True

    def _initial(self, node: ET.Element) -> list[str] | None:
        inside = children(node, *STATES)
        if not inside:
            return None
        written = node.get("initial")
        if written is None:
            elements = [one for initial in children(node, "initial") for one in children(initial)]
            written = elements[0].get("target") if elements else self._ids[inside[0]]
        return (written or "").split()

    def _state(self, node: ET.Element, parent: State[Model] | None, *, initial: bool) -> None:
        name, kind = self._ids[node], tag(node)
        if kind == "history":
            assert parent is not None, "no document of the suites has a history of its own"
            self._history(node, parent)
            return
        final, in_parallel = kind == "final", parent is not None and parent.name in self._parallels
        if parent is None:
            state = self.flow.state(name, initial=initial, final=final)
        elif in_parallel:
            state = parent.region(name)
        else:
            state = parent.state(name, initial=initial, final=final)
        said = children(node, "donedata")
        if said:
            state.output = self._contents.output(said[0])
        self._states[name] = state
        self._handlers(node, state)
        targets = self._initial(node) if kind == "state" else None
        inside = {self._ids[one] for one in children(node, *STATES)}
        block = self._block([t for one in children(node, "initial") for t in children(one)])
        direct = targets is not None and len(targets) == 1 and targets[0] in inside and block is None
        for child in children(node, *NODES):
            self._state(child, state, initial=direct and targets == [self._ids[child]])
        if targets is not None and not direct:
            state.initially([*targets], do=block)

    @property
    def _parallels(self) -> set[str]:
        return {name for node, name in self._ids.items() if tag(node) == "parallel"}

    def _handlers(self, node: ET.Element, state: State[Model]) -> None:
        late = [one for model in children(node, "datamodel") for one in children(model, "data")]
        if self._late and late:
            block = self._contents.doing([self._once(one) for one in late])
            assert block is not None
            state.entry(block)
        for one in children(node, "onentry"):
            state.entry(self._contents.block(children(one)) or _nothing)
        for one in children(node, "onexit"):
            state.exit(self._contents.block(children(one)) or _nothing)

    def _once(self, data: ET.Element) -> Content:
        """Binds a variable when its state is entered first."""
        name, declare = data.attrib["id"], self._contents.declaration(data)

        def do(doing: Doing) -> None:
            if name not in doing.model.values:
                declare(doing)

        return do

    def _history(self, node: ET.Element, parent: State[Model]) -> None:
        defaults = children(node, "transition")
        to: Sequence[str] | None = defaults[0].attrib["target"].split() if defaults else None
        deep = node.get("type") == "deep"
        state = parent.history(self._ids[node], deep=deep, default=to, do=self._block(defaults))
        self._states[state.name] = state

    def _block(self, transitions: list[ET.Element]) -> Block | None:
        return self._contents.block(one for transition in transitions for one in children(transition))

    def _transition(self, node: ET.Element, transition: ET.Element) -> None:
        state = self._states[self._ids[node]]
        targets = transition.get("target", "").split()
        guard = self._contents.guard(transition.attrib["cond"]) if "cond" in transition.attrib else None
        do = self._block([transition])
        to: list[State[Model] | str] | None = [*targets] or None
        reenter = bool(targets) and not self._is_internal(node, transition, targets)
        if "event" not in transition.attrib:
            state.always(to=to, when=guard, do=do, reenter=reenter)
        for event in self._classes(transition.get("event", "").split()):
            state.on(event, to=to, when=guard, do=do, reenter=reenter)

    def _is_internal(self, node: ET.Element, transition: ET.Element, targets: list[str]) -> bool:
        """As in the text: only out of a compound state, to states inside it."""
        if transition.get("type") != "internal" or tag(node) != "state":
            return False
        inside = {self._ids[one] for one in self._nodes(node)}
        return set(targets) <= inside

    def _classes(self, descriptors: list[str]) -> list[type[Event]]:
        found: list[type[Event]] = []
        for each in descriptors:
            name = each.removesuffix(".*").removesuffix(".")
            done = self._states.get(name.removeprefix("done.state."))
            if name in ("*", ""):
                found += [told("*"), told("error.*")]
            elif done is not None and name.startswith("done.state."):
                found.append(done.done)
            elif name == Failed.event_type():
                found.append(Failed)
            else:
                found.append(told(f"{name}.*"))
        return list(dict.fromkeys(found))


def _nothing(_model: Model, _event: Event) -> None:
    return None
