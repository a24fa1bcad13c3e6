"""The canonical form of a definition."""

from __future__ import annotations

from typing import Any

import orjson

from statemachines.definition import Pipeline


def canonical_bytes(pipeline: Pipeline[Any]) -> bytes:
    """The structure of a pipeline as bytes, equal wherever the structure is."""
    return orjson.dumps([pipeline.name, pipeline.version])
