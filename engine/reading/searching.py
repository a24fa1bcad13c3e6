"""What a person asks of search attributes, as the store is asked for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

from engine.errors import UsageError
from engine.reading.catalog import Catalog, load_catalog
from engine.store.connecting import Connection
from statemachines.search import WORDS, Kind, Value, asked_as, combined
from statemachines.suggest import did_you_mean

CONDITIONS_MAX = 20
WAYS_MAX = 1_000
"""How many combinations of what attributes are in different definitions are asked for."""

Where = Mapping[str, object] | Sequence[tuple[str, object]]
"""The values that search attributes are to have, by their names, or in pairs with them."""


def conditions(where: Where) -> list[tuple[str, str]]:
    """What a program asks of search attributes, as a person would write it. Raises UsageError."""
    pairs: Any = [*where.items()] if isinstance(where, Mapping) else where
    if not isinstance(pairs, list | tuple) or not all(map(_is_pair, pairs)):
        raise UsageError(
            "where= takes values by the names of search attributes, as in {'tenant': 'acme'}, or pairs of both, as in "
            f"[('tenant', 'acme')], and not {where!r:.100}."
        )
    return [(name, _written(value)) for name, value in pairs]


def _is_pair(one: Any) -> bool:
    match one:
        case [str(), _]:
            return True
    return False


def _written(value: object) -> str:
    match value:
        case Enum():
            return _written(value.value)
        case bool():
            return str(value).lower()
        case date():
            return value.isoformat()
        case str() | int() | float() | Decimal():
            return str(value)
    raise UsageError(
        f"where= asks for a text, a number, a time, or true or false, and not for {value!r:.100}."
    )


async def asked_attributes(
    connection: Connection, namespace: str, pipeline: str | None, where: Sequence[tuple[str, str]]
) -> list[str]:
    """JSON objects, one of which the attributes of a run contain that has all these values.

    Raises:
        UsageError: no definition has such an attribute, or it cannot have such a value.
    """
    if len(where) > CONDITIONS_MAX:
        raise UsageError(f"Ask for {CONDITIONS_MAX} attributes at most; these are {len(where)}.")
    known = _known(await load_catalog(connection, namespace), pipeline)
    of = f"pipeline {pipeline!r}" if pipeline is not None else f"pipeline of the namespace {namespace!r}"
    asked = [_forms(name, text, known, of) for name, text in where]
    if math.prod(map(len, asked)) > WAYS_MAX:
        raise UsageError("Definitions differ too much in what these attributes are. Name a --pipeline.")
    return [json.dumps(way) for way in combined(asked)]


def _known(catalog: Catalog, pipeline: str | None) -> dict[str, set[Kind]]:
    """All attributes, and what they are in one definition or another."""
    known: dict[str, set[Kind]] = {}
    for definition in catalog.definitions.values():
        if pipeline in (None, definition.pipeline_name):
            for name, kind in definition.searchable.items():
                known.setdefault(name, set()).add(kind)
    return known


def _forms(name: str, text: str, known: dict[str, set[Kind]], of: str) -> list[tuple[str, Value]]:
    if name not in known:
        raise UsageError(f"No {of} has a search attribute {name!r}. {did_you_mean(name, known)}")
    kinds = sorted(known[name])
    forms: list[tuple[str, Value]] = []
    for kind in kinds:
        value = asked_as(kind, text)
        if value is not None:
            forms.append((name, value))
    if not forms:
        takes = " or ".join(WORDS[kind] for kind in kinds)
        raise UsageError(f"The search attribute {name!r} is {takes}, which {text!r} is not.")
    return forms
