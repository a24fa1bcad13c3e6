"""The hash of a definition's code: of its functions and classes, and of the helpers that they reach.

It is made from syntax trees (see ``syntax``), so it is equal on every Python, in every process, and after
changes of comments, docstrings and layout. Names of modules and files do not count, so that a pipeline may
be imported as a module or as a file. Helpers are those of the same package (see ``reach``); of others, only
their names count.

Values that a function carries with it count where they are data: numbers, texts, times and spans, patterns, lists of
them, data classes and models. These are those in its closure, its defaults, the arguments of a ``functools.partial``,
the attributes of a callable object. Of others (a client, a path, which is another one elsewhere) only the type counts.

What steps do is not in it: they are not done again when a run is replayed, so a run may go on with another way of doing
them. What they return is: the classes that are named there. So a function that names a step, as in
``Complete(review, ...)``, leads to no more than its name.

Where there is no source (built-ins, a REPL, classes made by ``Event.named``) the name counts, and the
fields of a class; a change within is then not seen. Of what comes with this product only the name counts: a new version
of it is no other code.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import re
import sys
from collections.abc import Iterator
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from statemachines.definition import Pipeline, State, name_of
from statemachines.events import is_outcome
from statemachines.reach import Reach, called, is_nobodys, module_of
from statemachines.source import definitions
from statemachines.step import Step
from statemachines.syntax import constant, encode

FORMAT = b"pointsman.code/1"
_DEPTH_MAX = 16
"""How deep values within values are looked into."""
_OF_CLASSES = frozenset({"statemachines", "pydantic"})
"""What classes of data are made with: another version of it is no other code."""


def code_hash(pipeline: Pipeline[Any]) -> bytes:
    """SHA-256, as 32 bytes, over the pipeline's context, events, and all functions that are not the work of steps."""
    reading = _Reading()
    parts = [_sha(f"{role} {reading.text_of(subject)}".encode()) for role, subject in _subjects(pipeline)]
    helpers = {_sha(helper.name.encode() + b" " + helper.code) for helper in reading.reach.helpers}
    return _sha(b"".join([FORMAT, *parts, *sorted(helpers)]))


def _subjects(pipeline: Pipeline[Any]) -> Iterator[tuple[str, Any]]:
    yield "context", pipeline.context
    for start in pipeline.starts:
        yield from (("event", start.event), ("build", start.build), ("action", start.action))
        if start.guard is not None:
            yield "guard", start.guard
    for move in pipeline.moves:
        # How a step ended comes as a class that is made here, of a type that the structure has.
        event = None if move.event is None or is_outcome(move.event) else move.event
        yield from (("event", event), ("guard", move.guard), ("action", move.action))
        if callable(move.delay):
            yield "delay", move.delay
    classes = [*(start.event for start in pipeline.starts), *(move.event for move in pipeline.moves)]
    for step in pipeline.steps:
        yield from (("result", one) for one in _classes_in(step.result_type))
    events = dict.fromkeys(event for event in classes if event is not None)
    keys = [*(event.event_key() for event in events), *(keyed.by for keyed in pipeline.keys)]
    yield from (("key", by) for by in keys if callable(by))
    yield from (("type", topic.type) for topic in pipeline.read_topics if callable(topic.type))
    for state in pipeline.states:
        yield from (("entry", function) for function, _ in state.entries)
        yield from (("exit", function) for function, _ in state.exits)
        if state.output is not None:
            yield "output", state.output
        if state.beginning is not None:
            yield "initially", state.beginning.action


def _classes_in(annotation: Any) -> Iterator[type]:
    """The classes that an annotation names, in its order."""
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for one in get_args(annotation):
        yield from _classes_in(one)


class _Reading:
    """Turns values into texts that stand for them in the hash, and notes the helpers on the way."""

    def __init__(self) -> None:
        self.reach = Reach()
        self._trail: list[int] = []

    def text_of(self, value: Any) -> str:
        """Code for functions and classes; itself for what is data; its name for a step; for the rest no more than its
        type.
        """
        if id(value) in self._trail or len(self._trail) > _DEPTH_MAX:
            return f"again({name_of(value) if callable(value) else type(value).__qualname__})"
        self._trail.append(id(value))
        try:
            return self._code(value) if callable(value) else self._plain(value)
        finally:
            self._trail.pop()

    def _plain(self, value: Any) -> str:
        text = self.text_of
        match value:
            case enum.Enum():
                return f"{type(value).__qualname__}.{value.name}"
            case None | bool() | int() | float() | complex() | str() | bytes():
                return constant(value)
            case list() | tuple():
                return f"[{','.join(map(text, value))}]"
            case set() | frozenset():
                return f"{{{','.join(sorted(map(text, value)))}}}"
            case dict():
                return f"{{{','.join(f'{text(key)}:{text(one)}' for key, one in value.items())}}}"
            case State():
                return called(value)
            case _:
                return f"{type(value).__qualname__}{self._data(value)}"

    def _data(self, value: Any) -> str:
        """What an object is beside its type, where it is data."""
        match value:
            case timedelta() | Decimal() | Fraction() | UUID() | ZoneInfo() | timezone() | range():
                return f"({value})"
            case date() | time():
                return f"({value.isoformat()})"
            case re.Pattern():
                return f"({self.text_of(value.pattern)} {value.flags})"
            case _ if is_nobodys(type(value).__module__):
                return ""
            case BaseModel():
                return self.text_of(value.__dict__)
            case _ if dataclasses.is_dataclass(value):
                return self.text_of(_fields_of(value))
            case _:
                return ""

    def _code(self, value: Any) -> str:
        text = self.text_of
        if isinstance(value, Step):
            return called(value)
        if isinstance(value, functools.partial):
            return f"partial({text(value.func)} {text(value.args)} {text(value.keywords)})"
        if isinstance(value, type):
            return self._class(value)
        if hasattr(value, "__func__"):
            return f"method({text(value.__func__)} {text(value.__self__)})"
        if hasattr(value, "__code__"):
            return self._function(value)
        if hasattr(value, "__name__"):
            return f"{type(value).__qualname__}({name_of(value)} {text(getattr(value, '__wrapped__', None))})"
        return f"object({text(type(value))} {text(getattr(value, '__dict__', None))})"

    def _function(self, function: Any) -> str:
        name = name_of(function) or ""
        trees = self._trees(function.__globals__, name, function.__code__.co_firstlineno)
        carried = [function.__defaults__, function.__kwdefaults__, _closure(function)]
        wrapped = getattr(function, "__wrapped__", None)
        return f"function({name} {trees} {self.text_of(carried)} {self.text_of(wrapped)})"

    def _class(self, cls: type) -> str:
        name = name_of(cls) or ""
        module = sys.modules.get(cls.__module__)
        trees = self._trees(vars(module), name, None) if module is not None else ""
        if trees or cls.__module__ == "builtins" or is_nobodys(cls.__module__):
            return f"class({name} {trees})"
        fields = sorted(cls.__pydantic_fields__) if issubclass(cls, BaseModel) else []
        bases = [base for base in cls.__bases__ if base.__module__.partition(".")[0] not in _OF_CLASSES]
        return f"class({name} {self.text_of(fields)} {self.text_of(bases)})"

    def _trees(self, variables: dict[str, Any], qualname: str, line: int | None) -> str:
        module = module_of(variables)
        if module is None:
            return ""
        found = definitions(module.tree, qualname, line)
        self.reach.follow(module, list(found))
        return ",".join(_sha(encode(node)).hex() for node in found)


def _fields_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}


def _closure(function: Any) -> dict[str, Any]:
    carried = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            carried[name] = cell.cell_contents
        except ValueError:  # nothing was assigned to it yet
            carried[name] = None
    return dict(sorted(carried.items()))


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
