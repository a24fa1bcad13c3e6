"""A real Apache Kafka of our own: one KRaft node as broker and controller, by Java, its jars from Maven.

Version 4.0.1 unless told otherwise: 4.3.1 can publish aborted records after a restart of its only replica
(KAFKA-20734), so tests that kill the broker must not use it.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import logging
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from engine.services import kafka_jars, kafka_security, ports
from engine.services.errors import ServiceError
from engine.services.kafka_security import Security
from engine.services.process import ServerProcess, last_lines

SecurityProtocol = Literal["plaintext", "sasl_ssl"]

SETTINGS = {
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # Groups form at once, and tests may ask for short sessions.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A producer that was killed blocks readers of committed records until the broker ends its transaction.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # Sample data carries old times, which retention would take for old records.
    "log.retention.ms": "-1",
    # Else 128 MB of a small heap.
    "log.cleaner.dedupe.buffer.size": "8388608",
    # A broker that is started again waits until its predecessor's session is over.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "300",
}
FAST_START = ("-XX:TieredStopAtLevel=1",)
HEAP_MIN = "256m"
FORMAT_SECONDS = 60.0
FORMAT_LINES = 5
READY_SECONDS = 90.0
STOP_SECONDS = 20.0
METADATA_SECONDS = 2.0


class ApacheKafka:
    """A running Kafka that keeps its data in a folder; a context manager that stops it.

    With `sasl_ssl` the clients need `ca_file`, `username` and the content of `password_file` (mechanisms
    PLAIN and SCRAM-SHA-512).
    """

    def __init__(
        self, folder: Path, port: int, controller_port: int, version: str, security: Security | None
    ) -> None:
        self.folder = folder
        self.port = port
        self.version = version
        self.log = folder / "kafka.log"
        self._controller_port = controller_port
        self._security = security
        self._java_options: tuple[str, ...] = ()
        self._process: ServerProcess | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        port: int = 0,
        version: str = "4.0.1",
        security: SecurityProtocol = "plaintext",
        settings: Mapping[str, str] | None = None,
        heap: str = "512m",
        optimize: bool = False,
        cluster: str | None = None,
    ) -> ApacheKafka:
        """Start on this folder, made where it does not exist; on an existing one its topics are there again.

        `port` 0 takes a free one; `settings` are the broker's own, over those of this module. `optimize` lets
        Java compile with its second compiler: faster under load, slower to start. `cluster` is the id of the
        cluster that it is part of, with `settings` that say so; None: one of its own. Raises ServiceError.
        """
        folder = folder.absolute()
        _require_client()
        kafka_jars.java()
        kafka_jars.class_path(version)
        port = ports.choose(port, "Apache Kafka", "--kafka-port")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            prepared = kafka_security.prepare(folder / "security") if security == "sasl_ssl" else None
            server = cls(folder, port, ports.choose(0, "Apache Kafka", "--kafka-port"), version, prepared)
            server._java_options = (
                *("-Xms" + HEAP_MIN, "-Xmx" + heap, "-XX:+UseSerialGC"),
                *(() if optimize else FAST_START),
            )
            server._write_settings(settings or {})
        except OSError as error:
            raise ServiceError(
                f"Apache Kafka cannot keep its data in {folder}: {error}. Choose a folder of your own."
            ) from error
        if not (folder / "data" / "meta.properties").exists():
            server._format(cluster or new_cluster())
        server.start_again()
        return server

    @property
    def bootstrap(self) -> str:
        """The address for clients, `host:port`."""
        return f"{ports.HOST}:{self.port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def ca_file(self) -> Path:
        return self._secured().ca_file

    @property
    def username(self) -> str:
        return self._secured().username

    @property
    def password_file(self) -> Path:
        return self._secured().password_file

    @property
    def is_started(self) -> bool:
        """Whether it was started and not ended since, by `kill` or `stop`."""
        return self._process is not None

    def kill(self) -> None:
        """End the broker as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the broker in order."""
        if self._process is not None:
            self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop the broker's time: connections stay, nothing is answered."""
        process = self._running()
        process.send(signal.SIGSTOP)
        process.wait_until_stopped()

    def resume(self) -> None:
        self._running().send(signal.SIGCONT)

    def start_again(self) -> None:
        """Start once more after `kill` or `stop`, on the same port and data; returns when it answers."""
        assert self._process is None, "Apache Kafka is running already"
        process = ServerProcess.start(
            "Apache Kafka",
            [*self._java(), "kafka.Kafka", "server.properties"],
            cwd=self.folder,
            log=self.log,
        )
        process.wait_ready(self._answers, READY_SECONDS)
        self._process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> ServerProcess:
        assert self._process is not None, "Apache Kafka is stopped"
        return self._process

    def _secured(self) -> Security:
        assert self._security is not None, "this Apache Kafka was started without security"
        return self._security

    def _end(self, number: signal.Signals) -> None:
        self._running().stop(number, STOP_SECONDS)
        self._process = None

    def _java(self) -> list[str]:
        return [
            *(kafka_jars.java(), *self._java_options),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            *("-cp", kafka_jars.class_path(self.version)),
        ]

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        protocol = "SASL_SSL" if self._security else "PLAINTEXT"
        controller = f"{ports.HOST}:{self._controller_port}"
        chosen = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{protocol}://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"{protocol}://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": protocol,
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{protocol}:{protocol}",
            "log.dirs": str(self.folder / "data"),
            **SETTINGS,
            **(kafka_security.broker_settings(self._security) if self._security else {}),
            **settings,
        }
        path = self.folder / "server.properties"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))

    def _format(self, cluster: str) -> None:
        command = ["format", f"--cluster-id={cluster}", "-c", "server.properties"]
        if self._security:
            scram = f"SCRAM-SHA-512=[name={self._security.username},password={self._security.password}]"
            command += ["--add-scram", scram]
        done = subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", *command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=FORMAT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            said = last_lines(done.stdout + done.stderr, FORMAT_LINES)
            raise ServiceError(f"Apache Kafka could not format its storage in {self.folder}:\n{said}")

    def _answers(self) -> bool:
        """Whether a client is told of a broker, after it has authenticated where that is asked."""
        if not ports.answers(self.port):
            return False
        from confluent_kafka import KafkaException  # noqa: PLC0415 - of an extra
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415 - of an extra

        settings: dict[str, Any] = {"bootstrap.servers": self.bootstrap}
        settings |= kafka_security.client_settings(self._security) if self._security else {}
        # While it starts, refusals are expected; librdkafka would print each.
        silent = logging.Logger(__name__, level=logging.CRITICAL + 1)  # noqa: LOG001 - of nobody else
        client = AdminClient(settings, logger=silent)
        with contextlib.suppress(KafkaException):
            return bool(client.list_topics(timeout=METADATA_SECONDS).brokers)
        return False


def new_cluster() -> str:
    """An id for a cluster, as Kafka writes them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _require_client() -> None:
    if importlib.util.find_spec("confluent_kafka") is None:
        raise ServiceError(
            "The client that looks whether Kafka answers is not installed. "
            "Install it with: pip install 'pointsman[dev]'"
        )
