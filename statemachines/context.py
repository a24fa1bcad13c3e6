"""A run's durable, typed data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Context(BaseModel):
    """Base class of contexts: what a run remembers between events.

    It is written to the log as JSON after each move and read back before the next, so what a handler leaves
    in it must survive that way there and back: JSON types, dates, decimals, models of these. Sets are
    refused when the pipeline is validated, since their order differs from process to process.
    """

    model_config = ConfigDict(extra="forbid")
