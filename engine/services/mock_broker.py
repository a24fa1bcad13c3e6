"""A small broker that speaks Kafka's protocol, from the wheel `confluent-kafka`: librdkafka's mock cluster.

It needs no Java, which is why `demo` and `dev` use it. It is no Kafka. What it does not do: rebalance a
group of two consumers; create topics by request (they appear, with four partitions, when first named); keep
more than about 5 MB a partition, or anything over a restart; hide aborted records from `read_committed`;
fence a zombie; right checksums on transactional topics (consumers need `check_crcs=False`). So: one engine
on it, and each start of it is a new source.

It runs in a process of its own: its records are not in the engine's memory, and a failed assertion in it,
which aborts its process, does not end the engine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.services.errors import ServiceError
from engine.services.process import tail

CLUSTER = Path(__file__).with_name("mock_cluster.py")
STOP_SECONDS = 5.0


class MockBroker:
    """A running mock broker; a context manager that stops it."""

    def __init__(self, process: subprocess.Popen[bytes], bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._process = process

    @classmethod
    def start(cls) -> MockBroker:
        """Start on a port of loopback that librdkafka chooses. Raises ServiceError."""
        if importlib.util.find_spec("confluent_kafka") is None:
            raise ServiceError(
                "The small broker for one machine is not installed. Install it with: "
                "pip install 'pointsman[dev]' - or give the address of your own Kafka (--kafka)."
            )
        with tempfile.TemporaryDirectory(prefix="pointsman-broker-") as scratch:
            log = Path(scratch, "log")
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-P", str(CLUSTER)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    start_new_session=True,
                )
            assert process.stdout is not None
            bootstrap = process.stdout.readline().decode().strip()
            process.stdout.close()
            broker = cls(process, bootstrap)
            if not bootstrap:
                broker.stop()
                raise ServiceError(f"The small broker did not start. It said:\n{tail(log)}")
            return broker

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End the broker; everything in it is gone."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
