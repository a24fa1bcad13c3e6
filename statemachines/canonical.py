from statemachines.definition import Pipeline
from typing import Any
import orjson


def canonical_bytes(pipeline: Pipeline[Any]) -> bytes:
    return orjson.dumps([pipeline.name, pipeline.version])
