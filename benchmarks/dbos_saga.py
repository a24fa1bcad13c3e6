"""The saga of W2 on DBOS, by itself: ``python -m benchmarks.dbos_saga``; the Python needs ``dbos`` and nothing of ours.

Workflows and steps are async functions, as its documentation asks where they wait; so many workflows are under way at
once, each started by itself rather than by a queue, which would cost it more. Steps are not tried again, and tracing is
off. Its pool has the default size; a larger one, and more or fewer workflows under way, made it no faster. Each step
writes into a ledger, as ours do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter

try:
    from dbos import DBOS, SetWorkflowID
except ModuleNotFoundError:
    sys.exit("DBOS is not installed. Install it with: pip install -e '.[benchmarks]'")

POOL_SIZE = 20
UNDER_WAY = 50
REFUSED_ONE_IN = 10


class Refused(Exception):  # noqa: N818 - it is what the carrier says
    """It does not take the parcel."""


def write(service: str, order: int) -> None:
    line = f"{service} order-{order} {DBOS.workflow_id}-{DBOS.step_id} {time.time():.6f}\n"
    os.write(LEDGER, line.encode())


@DBOS.step()
async def charge(order: int) -> int:
    write("charge", order)
    return order


@DBOS.step()
async def reserve(order: int) -> int:
    write("reserve", order)
    return order + 1


@DBOS.step()
async def ship(order: int) -> int:
    write("ship", order)
    if order % REFUSED_ONE_IN == 0:
        raise Refused(f"order {order}")
    return order + 2


@DBOS.step()
async def release(order: int) -> None:
    write("release", order)


@DBOS.step()
async def refund(order: int) -> None:
    write("refund", order)


@DBOS.workflow()
async def saga(order: int) -> str:
    await charge(order)
    await reserve(order)
    try:
        await ship(order)
    except Refused:
        await release(order)
        await refund(order)
        return "undone"
    return "shipped"


async def work(first: int, count: int, under_way: int) -> Counter[str]:
    """So many sagas, of which so many are under way at any time."""
    orders, ends = iter(range(first, first + count)), Counter[str]()

    async def one_after_the_other() -> None:
        for order in orders:
            with SetWorkflowID(f"order-{order}"):
                handle = await DBOS.start_workflow_async(saga, order)
            ends[await handle.get_result()] += 1

    await asyncio.gather(*(one_after_the_other() for _ in range(under_way)))
    return ends


async def main(options: argparse.Namespace) -> None:
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": options.postgres,
            "sys_db_pool_size": options.pool,
            "log_level": "ERROR",
            "console_log_level": "ERROR",
            "enable_otlp": False,
        }
    )
    DBOS.launch()
    try:
        # The first ones make connections and fill caches; they do not count.
        await work(options.count, options.under_way, options.under_way)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began = time.time()
        ends = await work(0, options.count, options.under_way)
        print(f"{began} {time.time()} {ends['shipped']} {ends['undone']}", flush=True)
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--under-way", type=int, default=UNDER_WAY)
    parser.add_argument("--pool", type=int, default=POOL_SIZE)
    given = parser.parse_args()
    LEDGER = os.open(given.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    asyncio.run(main(given))
