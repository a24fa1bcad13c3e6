"""Executable content of SCXML as functions of a pipeline: (context, event) -> effects."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import Field

from statemachines import Cancel, Context, Event, Raise, Send
from statemachines.effects import Effect
from tests.scxml.ecmascript import Expression, expression, location, script
from tests.scxml.ecmascript_values import UNDEFINED, ScriptError, truth

TOPIC: Final = "chart"
START_TYPE: Final = "chart.begins"
PROCESSOR: Final = "http://www.w3.org/TR/scxml/#SCXMLEventProcessor"


class UntranslatableError(Exception):
    """The document has what a pipeline has not; the message says what."""


class Model(Context):
    """The variables of a chart. One that is declared and has no value is undefined."""

    declared: list[str] = Field(default_factory=list)
    values: dict[str, Any] = Field(default_factory=dict)
    sent: int = 0


class Told(Event):
    """An event of a chart, raised, sent or from outside."""

    data: Any = None
    has_data: bool = False
    sendid: str | None = None


@cache
def told(name: str) -> type[Told]:
    """The class of events of this type."""
    return Told.named(name)


def make(name: str, data: Any = UNDEFINED, sendid: str | None = None) -> Told:
    """An event; raises ScriptError where it is none."""
    if not name:
        raise ScriptError("an event without a name")
    if data is UNDEFINED:
        return told(name)(sendid=sendid)
    return told(name)(data=data, has_data=True, sendid=sendid)


@dataclass(slots=True)
class Doing:
    """A block while it is executed, and the scope of its expressions."""

    name: str
    model: Model
    event: Event
    effects: list[Effect] = field(default_factory=list)

    def get(self, name: str) -> Any:
        match name:
            case "_event":
                return self._event()
            case "_sessionid":
                return self.event.meta.key
            case "_name":
                return self.name
        if name not in self.model.declared:
            raise ScriptError(f"there is no {name}")
        return self.model.values.get(name, UNDEFINED)

    def set(self, name: str, value: Any) -> None:
        if name.startswith("_") or name not in self.model.declared:
            raise ScriptError(f"{name} cannot be assigned to")
        if value is UNDEFINED:
            self.model.values.pop(name, None)
        else:
            self.model.values[name] = value

    def declare(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z$][\w$]*", name):
            raise ScriptError(f"{name!r} is no name of a variable")
        if name not in self.model.declared:
            self.model.declared.append(name)

    def is_in(self, state: str) -> bool:
        return self.event.meta.is_in(state)

    def _event(self) -> Any:
        event, name = self.event, self.event.meta.type
        if name == START_TYPE:
            return UNDEFINED
        found: dict[str, Any] = {"name": name}
        if getattr(event, "has_data", True) and getattr(event, "data", None) is not None:
            found["data"] = event.data  # type: ignore[attr-defined]  # of Told and of Done
        if isinstance(event, Told) and event.sendid is not None:
            found["sendid"] = event.sendid
        return found


Content = Callable[[Doing], None]
Block = Callable[[Model, Any], list[Effect]]


def tag(element: ET.Element) -> str:
    """Its name, without the namespace."""
    return element.tag.rpartition("}")[2]


def children(element: ET.Element, *names: str) -> list[ET.Element]:
    """Those of these names; without any, all."""
    return [one for one in element if isinstance(one.tag, str) and (not names or tag(one) in names)]


class Contents:
    """Makes blocks of elements; ``folder`` is where scripts and data of a document are."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder

    def block(self, elements: Iterable[ET.Element]) -> Block | None:
        """One function of several elements, which fails as one; None where there are none."""
        return self.doing(self._contents(elements))

    def doing(self, contents: list[Content]) -> Block | None:
        """The same of what is made already."""
        if not contents:
            return None

        def act(model: Model, event: Event) -> list[Effect]:
            doing = Doing(self._name, model, event)
            for content in contents:
                content(doing)
            return doing.effects

        return act

    def guard(self, cond: str) -> Callable[[Model, Any], bool]:
        """Whether a condition counts as true."""
        asked = expression(cond)

        def holds(model: Model, event: Event) -> bool:
            return truth(asked(Doing(self._name, model, event)))

        return holds

    def output(self, element: ET.Element) -> Callable[[Model, Any], Any]:
        """What ``<donedata>`` says."""
        asked = self._payload(element)

        def say(model: Model, event: Event) -> Any:
            found = asked(Doing(self._name, model, event))
            return None if found is UNDEFINED else found

        return say

    def declaration(self, data: ET.Element) -> Content:
        """Assigns what ``<data>`` begins with."""
        name, value = data.attrib["id"], self._value(data, self._read(data.get("src")))

        def declare(doing: Doing) -> None:
            doing.declare(name)
            doing.set(name, value(doing))

        return declare

    def _read(self, source: str | None) -> str | None:
        if source is None:
            return None
        return (self._folder / source.removeprefix("file:")).read_text()

    def _value(self, element: ET.Element, content: str | None = None) -> Expression:
        """Of the attribute ``expr``, or of what is written inside."""
        if "expr" in element.attrib:
            return expression(element.attrib["expr"])
        if children(element):
            raise UntranslatableError("XML as data")
        text = (content if content is not None else element.text or "").strip()
        if text.startswith("<"):
            raise UntranslatableError("XML as data")
        try:
            value = orjson.loads(text)
        except ValueError:
            value = " ".join(text.split()) if text else UNDEFINED
        if isinstance(value, str) and "{" in text:
            return expression(text)
        return lambda _: value

    def _contents(self, elements: Iterable[ET.Element]) -> list[Content]:
        return [self._content(one) for one in elements]

    def _content(self, element: ET.Element) -> Content:
        given = element.attrib
        match tag(element):
            case "raise":
                event = told(given["event"])
                return lambda doing: doing.effects.append(Raise(event()))
            case "assign":
                assign, value = location(given["location"]), self._value(element)
                return lambda doing: assign(doing, value(doing))
            case "log":
                said = expression(given.get("expr", "''"))
                return lambda doing: (said(doing), None)[1]
            case "script":
                return self._script(element)
            case "if":
                return self._if(element)
            case "foreach":
                return self._foreach(element)
            case "send":
                return self._send(element)
            case "cancel":
                called = self._asked(given, "sendid")
                return lambda doing: doing.effects.append(Cancel(str(called(doing))))
        raise UntranslatableError(f"<{tag(element)}>")

    def _script(self, element: ET.Element) -> Content:
        text = self._read(element.get("src"))
        declared, run = script((element.text or "") if text is None else text)

        def do(doing: Doing) -> None:
            for name in declared:
                doing.declare(name)
            run(doing)

        return do

    def _if(self, element: ET.Element) -> Content:
        parts: list[tuple[Expression, list[Content]]] = [(expression(element.attrib["cond"]), [])]
        for one in children(element):
            if tag(one) in ("elseif", "else"):
                parts.append((expression(one.get("cond", "true")), []))
            else:
                parts[-1][1].append(self._content(one))

        def do(doing: Doing) -> None:
            for cond, contents in parts:
                if truth(cond(doing)):
                    for content in contents:
                        content(doing)
                    return

        return do

    def _foreach(self, element: ET.Element) -> Content:
        array, contents = expression(element.attrib["array"]), self._contents(children(element))
        names = [element.attrib[name] for name in ("item", "index") if name in element.attrib]

        def do(doing: Doing) -> None:
            items = array(doing)
            if not isinstance(items, list):
                raise ScriptError("foreach needs an array")
            for name in names:
                doing.declare(name)
            for at, item in enumerate(list(items)):
                for name, value in zip(names, (item, at), strict=False):
                    doing.set(name, value)
                for content in contents:
                    content(doing)

        return do

    def _send(self, element: ET.Element) -> Content:
        given = element.attrib
        event, target = self._asked(given, "event"), self._asked(given, "target")
        kind, delay = self._asked(given, "type"), self._asked(given, "delay")
        payload, sendid = self._payload(element), given.get("id")
        assign = location(given["idlocation"]) if "idlocation" in given else None

        def do(doing: Doing) -> None:
            doing.model.sent += 1
            own = sendid or (f"send.{doing.model.sent}" if assign else None)
            if assign:
                assign(doing, own)
            to = _addressee(doing, target(doing), kind(doing))
            made = make(str(event(doing) or ""), payload(doing), own)
            after = _delay(delay(doing))
            if to == "#_internal":
                doing.effects.append(Raise(made))
            else:
                doing.effects.append(Send(made, after=after, id=own or ""))

        return do

    def _asked(self, given: dict[str, str], name: str) -> Expression:
        """Of an attribute, which may be an expression."""
        if f"{name}expr" in given:
            return expression(given[f"{name}expr"])
        return lambda _: given.get(name)

    def _payload(self, element: ET.Element) -> Expression:
        """The data of an event: what ``<content>`` says, or an object of names and params."""
        contents = children(element, "content")
        if contents:
            return self._value(contents[0])
        fields = [(name, expression(name)) for name in element.get("namelist", "").split()]
        for param in children(element, "param"):
            asked = param.get("expr") or param.get("location")
            fields.append((param.attrib["name"], expression(asked or "")))
        if not fields:
            return lambda _: UNDEFINED
        return lambda scope: {name: value(scope) for name, value in fields}


def _addressee(doing: Doing, target: str | None, kind: str | None) -> str | None:
    if kind not in (None, "scxml", PROCESSOR):
        raise ScriptError(f"nothing sends by {kind}")
    if target is None or target in ("#_internal", f"#_scxml_{doing.event.meta.key}"):
        return target
    raise ScriptError(f"nobody is at {target}")


def _delay(text: str | None) -> timedelta | None:
    found = re.fullmatch(r"(\d*\.?\d+)(ms|s)", text or "0s")
    if found is None:
        raise ScriptError(f"{text!r} is no time")
    seconds = float(found[1]) / (1000 if found[2] == "ms" else 1)
    return timedelta(seconds=seconds) if seconds else None
