"""The search attributes of a run, held beside what its context says. Pure, and without user code."""

from __future__ import annotations

import json
from collections.abc import Iterator

from engine.reading.catalog import Catalog
from engine.reading.verify.chains import named, short
from engine.reading.verify.report import Finding
from statemachines.run import Run
from statemachines.search import Attributes, attributes_of


def check_attributes(catalog: Catalog, pipeline: int, run: Run, stored: str | None) -> Iterator[Finding]:
    """What is wrong with the attributes that are stored of a run; they are an index, made from its context."""
    definition = catalog.definitions.get(run.definition)
    found: Attributes = {} if stored is None else json.loads(stored)
    try:
        meant = (
            attributes_of(definition.searchable, run.context) if definition and definition.searchable else {}
        )
    except ValueError:  # what the context should be, its log says
        return
    if _written(found) != _written(meant):
        name = catalog.pipelines.get(pipeline, str(pipeline))
        told = f"the search attributes are {_shown(found)}, and {_shown(meant)} by its context"
        where = named(name, run)
        yield Finding(f"In {where}, {told}.", name, run.key, run.generation, run.sequence)


def _shown(attributes: Attributes) -> str:
    return short("attributes", _written(attributes))


def _written(attributes: Attributes) -> str:
    # True is equal to 1, and is not the same.
    return json.dumps(attributes, ensure_ascii=False, sort_keys=True)
