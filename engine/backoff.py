"""Trying again: with growing, jittered pauses, and without flooding the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time

from tenacity import RetryCallState
from tenacity.wait import wait_random_exponential

log = logging.getLogger("pointsman.engine")


class Backoff:
    """Pauses between attempts at one service; complains at most once in a while.

    A failure that comes ``lapse_seconds`` after the last one is the first of its kind, with a short pause again; so is
    one after a success that has lasted for ``lasting_seconds``, while sooner the pauses go on growing.
    """

    def __init__(
        self,
        seconds_max: float,
        complain_seconds: float,
        lapse_seconds: float = math.inf,
        lasting_seconds: float = 0.0,
    ) -> None:
        self._wait = wait_random_exponential(multiplier=0.1, max=seconds_max)
        self._complain_seconds = complain_seconds
        self._lapse_seconds = lapse_seconds
        self._lasting_seconds = lasting_seconds
        self._complained_at: float | None = None
        self._failed_at = -math.inf
        self._succeeded_at: float | None = None
        self._attempts = 0
        self._away_attempts = 0
        """Those since it was there last."""
        self._is_told = False
        """Whether it was said that it is away, and not that it is back."""

    def failed(self, message: str) -> None:
        """Count a failure, and say so if it was not said lately."""
        now = time.monotonic()
        succeeded_at, self._succeeded_at = self._succeeded_at, None
        has_lasted = succeeded_at is not None and now - succeeded_at >= self._lasting_seconds
        if has_lasted:
            self._complained_at = None
        if has_lasted or now - self._failed_at >= self._lapse_seconds:
            self._attempts = 0
        if succeeded_at is not None:
            self._away_attempts = 0
        self._failed_at = now
        self._attempts += 1
        self._away_attempts += 1
        if self._complained_at is None or now - self._complained_at >= self._complain_seconds:
            log.warning("%s", message)
            self._complained_at = now
            self._is_told = True

    def succeeded(self) -> None:
        """Have no pause before the next attempt; where it was said that the service is away, say that it is back."""
        if self._is_told:
            log.info("back after %s attempts", self._away_attempts)
        self._is_told = False
        if self._succeeded_at is None:
            self._succeeded_at = time.monotonic()

    async def wait(self, unless: asyncio.Event) -> None:
        """Pause before the next attempt, or until the event."""
        if self._attempts == 0 or self._succeeded_at is not None:
            return
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = min(self._attempts, 16)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait(state)):
                await unless.wait()
