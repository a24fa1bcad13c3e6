from statemachines.definition import Pipeline
from typing import Any


def code_hash(pipeline: Pipeline[Any]) -> bytes:
    return b"\0" * 32
