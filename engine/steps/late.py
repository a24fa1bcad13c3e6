"""What attempts did after their runs were told that it was not done: who looks at it, where the run cannot."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from engine.steps.result import StepResult
from engine.store.contract import Store
from statemachines.events import STEP_DONE, STEP_FAILED, STEP_SKIPPED, STEP_STOPPED

log = logging.getLogger("pointsman.engine")

WITHOUT = STEP_FAILED, STEP_STOPPED, STEP_SKIPPED
"""What a run was told last of an execution that it goes on without, as one that failed or is undone."""


class LateSuccesses:
    """Those of one engine, once it is durable that their runs were told."""

    def __init__(self) -> None:
        self._settled: list[StepResult] = []

    def settle(self, results: Iterable[StepResult]) -> None:
        """These are durable."""
        self._settled += [one for one in results if one.is_late and one.event_type.startswith(STEP_DONE)]

    async def tell(self, store: Store) -> None:
        """Warn of those that came to nothing, whose steps had failed or were stopped by then, and perhaps undone."""
        settled = [*self._settled]
        if not settled:
            return
        said = await store.said_last([(one.begun.run, _key(one)) for one in settled])
        # More may have come meanwhile.
        del self._settled[: len(settled)]
        for one, last in zip(settled, said, strict=True):
            if last.startswith(WITHOUT):
                log.warning(
                    "an attempt at the step was done after its run had gone on as if it was not, and perhaps after it "
                    "was undone: look up by its idempotency key what there is, and put it right",
                    extra={
                        "pipeline": one.route.name,
                        "run": one.begun.key,
                        "step": one.begun.step,
                        "attempt": one.begun.attempt,
                        "idempotency_key": _key(one),
                    },
                )


def _key(result: StepResult) -> str:
    """What all attempts at its execution are known by."""
    return result.event_id.partition("/")[0]
