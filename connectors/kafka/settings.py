"""How to reach a Kafka cluster; every secret comes from a file or the environment, never from an argument."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiokafka.abc import AbstractTokenProvider

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Address and security of a cluster."""

    bootstrap: str
    """``host:port``, several separated by commas."""
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: Mechanism = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    """From the environment; a file is the other way."""
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None
    """For OAUTHBEARER: a file with the token, read again whenever one is needed."""
    check_crcs: bool = True
    """False for librdkafka's built-in broker only, whose checksums on transactional topics are wrong."""
    client_id: str = "pointsman"

    def client_options(self) -> dict[str, Any]:
        """The arguments that every aiokafka client takes."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
        }
        if "SSL" in self.security_protocol:
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == "OAUTHBEARER":
                options["sasl_oauth_token_provider"] = _FileTokens(self.token_file)
            else:
                options["sasl_plain_username"] = self.username
                options["sasl_plain_password"] = self._password()
        return options

    def _password(self) -> str | None:
        return self.password if self.password_file is None else self.password_file.read_text("utf-8").strip()

    def _ssl_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
        if self.certificate_file is not None:
            context.load_cert_chain(str(self.certificate_file), str(self.key_file) if self.key_file else None)
        return context


class _FileTokens(AbstractTokenProvider):
    def __init__(self, file: Path | None) -> None:
        self._file = file

    async def token(self) -> str:
        if self._file is None:
            raise ValueError("OAUTHBEARER needs a token file (POINTSMAN_KAFKA_TOKEN_FILE)")
        return self._file.read_text("utf-8").strip()
