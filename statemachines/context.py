"""A run's durable, typed data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Context(BaseModel):
    """Base class of contexts: what a run remembers between events.

    It is written to the log as JSON after each move and read back before the next, so what a handler leaves
    in it must survive that way there and back: JSON types, dates, decimals, models of these. Sets are
    refused when the pipeline is validated, since their order differs from process to process.
    """

    # What JSON has no word for is refused, or written in one that is read back as the same.
    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        ser_json_inf_nan="strings",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )
