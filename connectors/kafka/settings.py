"""How to reach a Kafka cluster; every secret comes from a file or the environment, never from an argument."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from connectors.credentials import RenewingContext, why_no_authority, why_no_certificate, why_unusable
from connectors.kafka.tokens import refuse_where_refused

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class CredentialsError(KafkaConnectionError, ValueError):
    """A file of our credentials cannot be used; the message says which, and what to do.

    A connection that fails, to whoever has begun: it may be in the middle of being renewed.
    """

    def __str__(self) -> str:
        return str(self.args[0])


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
        """The arguments that every aiokafka client takes.

        Raises:
            CredentialsError: a file cannot be used.
        """
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
                refuse_where_refused()
                options["sasl_oauth_token_provider"] = _FileTokens(self.token_file)
            else:
                options["sasl_plain_username"] = self.username
                options["sasl_plain_password"] = self._password()
        return options

    def _password(self) -> str | None:
        if self.password_file is None:
            return self.password
        return _read_secret("password", self.password_file, "POINTSMAN_KAFKA_PASSWORD_FILE")

    def _ssl_context(self) -> ssl.SSLContext:
        why = None
        if self.ca_file is not None:
            why = why_no_authority(self.ca_file, "POINTSMAN_KAFKA_CA_FILE")
        if why is None and self.certificate_file is not None:
            named = ("POINTSMAN_KAFKA_CERTIFICATE_FILE", "POINTSMAN_KAFKA_KEY_FILE")
            why = why_no_certificate(self.certificate_file, self.key_file, named)
        if why is not None:
            raise CredentialsError(why)
        return RenewingContext.of(self.ca_file, self.certificate_file, self.key_file)


class _FileTokens(AbstractTokenProvider):
    """Asked for each connection, so that a token that was renewed counts from the next one on."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    async def token(self) -> str:
        if self._file is None:
            raise CredentialsError("OAUTHBEARER needs a file with a token: POINTSMAN_KAFKA_TOKEN_FILE.")
        return _read_secret("token", self._file, "POINTSMAN_KAFKA_TOKEN_FILE")


def _read_secret(what: str, file: Path, named: str) -> str:
    try:
        found = file.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        why = why_unusable(what, file, named) or f"The {what} in {file} ({named}) is no text in UTF-8."
        raise CredentialsError(why) from error
    if not found:
        raise CredentialsError(f"There is no {what} in {file} ({named}): the file is empty.")
    return found
