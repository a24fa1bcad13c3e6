"""Which of several addresses of a cluster a client begins with: one that answers.

From its first answer on a client knows all brokers. But aiokafka asks one address after the other, and whose machine is
gone, or stands still, it awaits as long as any answer, which is longer than most of our questions may take: so with
one broker of three away for a day, every third attempt to connect would fail, or take a minute.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import KafkaError

from connectors.kafka.settings import KafkaSettings

NEXT_SECONDS = 0.25
"""An address that has not answered by then is asked no longer alone."""
ANSWER_SECONDS = 5.0
"""Where no address has answered by then, the client says so in its own words."""


async def answering(settings: KafkaSettings, seconds: float = ANSWER_SECONDS) -> KafkaSettings:
    """The same settings with the one of several addresses that answers first; unchanged where none does.

    Raises what ``KafkaSettings.client_options`` does.
    """
    addresses = [one.strip() for one in settings.bootstrap.split(",")]
    if len(addresses) == 1:
        return settings
    random.shuffle(addresses)
    found = await _first_to_answer(settings.client_options(), addresses, seconds)
    return settings if found is None else replace(settings, bootstrap=found)


async def _first_to_answer(options: Mapping[str, Any], left: list[str], seconds: float) -> str | None:
    asked: dict[asyncio.Task[bool], str] = {}
    try:
        async with asyncio.timeout(seconds):
            while left or asked:
                if left:
                    address = left.pop()
                    asked[asyncio.create_task(_answers(options, address))] = address
                patience = NEXT_SECONDS if left else None
                done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    address = asked.pop(one)
                    if one.result():
                        return address
    except TimeoutError:
        pass
    finally:
        for one in asked:
            one.cancel()
        if asked:
            await asyncio.wait(asked)
    return None


async def _answers(options: Mapping[str, Any], address: str) -> bool:
    """Whether a broker says there which requests it knows, which it does before it asks who we are."""
    make: Any = create_conn  # aiokafka is not typed
    read: Any = collect_hosts
    [(host, port, _)] = read(address, randomize=False)
    try:
        connection = await make(
            host,
            port,
            client_id=options["client_id"],
            request_timeout_ms=round(ANSWER_SECONDS * 1000),
            security_protocol="SSL" if "ssl_context" in options else "PLAINTEXT",
            ssl_context=options.get("ssl_context"),
        )
    except (KafkaError, OSError, TimeoutError):
        return False
    connection.close()
    return True
