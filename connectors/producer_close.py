"""Closing one of aiokafka's producers within a time limit, which its own ``stop`` does not know."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from aiokafka.errors import KafkaError, ProducerClosed


async def close_producer(producer: Any, seconds: float) -> None:
    """Wait so long for what is under way to be confirmed, then give it up and close all connections."""
    try:
        async with asyncio.timeout(seconds):
            # stop() would do it, too, in a task that nobody could end.
            await producer.flush()
            await producer.stop()
    except TimeoutError:
        await _abandon(producer)
    except asyncio.CancelledError:
        await _abandon(producer)
        raise


async def _abandon(producer: Any) -> None:
    # stop() would wait until the broker is back (aio-libs/aiokafka#1101), and there is no other way out.
    client, accumulator = producer.client, producer._message_accumulator  # noqa: SLF001
    task = producer._sender.sender_task  # noqa: SLF001
    producer._closed = accumulator._closed = True  # noqa: SLF001
    if task is not None:
        task.cancel()
    # The task first waits for its requests, which end with their connections, and these for news of the
    # topics, which nobody will bring any more.
    await client.close()
    news = client._md_update_fut  # noqa: SLF001
    if news is None or news.done():
        news = client._md_update_fut = asyncio.get_running_loop().create_future()  # noqa: SLF001
    news.set_result(False)
    if task is not None:
        with contextlib.suppress(KafkaError, asyncio.CancelledError):
            await task
    _fail_all(accumulator)
    # A request that was about to connect may have done so.
    await client.close()


def _fail_all(accumulator: Any) -> None:
    queued = [batch for batches in accumulator._batches.values() for batch in batches]  # noqa: SLF001
    # Each batch takes itself out of the pending ones when it ends, also one that was put back into the queue.
    accumulator._pending_batches.update(queued)  # noqa: SLF001
    pending = list(accumulator._pending_batches)  # noqa: SLF001
    accumulator.fail_all(ProducerClosed())
    for batch in pending:
        # Looked at, so that asyncio does not complain of an exception that nobody saw.
        batch._drain_waiter.exception()  # noqa: SLF001
