"""The settings that there are: names, defaults, choices. The variable of each is ``POINTSMAN_<NAME>``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from engine.limits import EngineLimits

PREFIX = "POINTSMAN_"
LIMIT = "limit_"
HIDDEN = "***"
NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Namespaces stand in the names of topics and groups."""

Origin = Literal["option", "environment", "default"]

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


@dataclass(frozen=True, slots=True)
class Kind:
    """A setting as it is known before it has a value."""

    name: str
    default: str | None
    what: str
    option: str | None = None
    secret: bool = False
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + self.name.upper()


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting with its value, and where that came from."""

    kind: Kind
    value: str | None
    origin: Origin

    @property
    def source(self) -> str:
        """In words: which option or variable it was."""
        named = {"option": self.kind.option, "environment": self.kind.variable}.get(self.origin)
        return f"{self.origin} {named}" if named else self.origin


def _limits() -> list[Kind]:
    return [
        Kind(LIMIT + one.name, str(one.default), "a limit of the engine")
        for one in dataclasses.fields(EngineLimits)
    ]


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in [
        Kind("postgres", None, "where the log is", "--postgres"),
        Kind("kafka", None, "where events come from", "--kafka"),
        Kind("namespace", "default", "what runs and positions belong to", "--namespace"),
        Kind("group", None, "the consumer group", "--group"),
        Kind("instance", None, "a name for static membership in the group", "--instance"),
        Kind("executors", None, "what does the work that steps describe", "--executors"),
        Kind("from", "earliest", "the first position: earliest, latest or a time", "--from"),
        # Not POINTSMAN_PORT: Kubernetes makes that for a service of the name pointsman.
        Kind("health_port", None, "the port of /healthz, /readyz and /metrics", "--port"),
        Kind("health_host", "127.0.0.1", "the address that the port is on", "--host"),
        Kind("kafka_security_protocol", "PLAINTEXT", "how Kafka is spoken to", choices=_PROTOCOLS),
        Kind("kafka_sasl_mechanism", "PLAIN", "how Kafka knows us", choices=_MECHANISMS),
        Kind("kafka_username", None, "who we are to Kafka"),
        Kind("kafka_password", None, "its password", secret=True),
        Kind("kafka_password_file", None, "a file with its password"),
        Kind("kafka_ca_file", None, "whom we trust to be Kafka"),
        Kind("kafka_certificate_file", None, "our certificate"),
        Kind("kafka_key_file", None, "its key"),
        Kind("kafka_token_file", None, "a file with a token, for OAUTHBEARER"),
        Kind("kafka_check_crcs", "true", "false for the embedded broker only", choices=("true", "false")),
        Kind("log_format", "auto", "text, json, or auto", "--log-format", choices=("auto", "text", "json")),
        Kind("log_level", "info", "how much is told", choices=("debug", "info", "warning", "error")),
        *_limits(),
    ]
}
