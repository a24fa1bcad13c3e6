"""What aiokafka's clients are given of each way to be known to Kafka; secrets come from files, and are not shown."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka.settings import KafkaSettings
from engine.errors import UsageError
from engine.settings import Settings
from tests.authority import Authority

ADDRESS = {"POINTSMAN_KAFKA": "broker:9092"}


def options(**variables: object) -> dict[str, Any]:
    environ = {f"POINTSMAN_KAFKA_{name.upper()}": str(value) for name, value in variables.items()}
    return Settings.resolve({}, {**ADDRESS, **environ}).kafka.client_options()


def test_without_a_word_nothing_is_encrypted_and_nobody_is_known() -> None:
    assert options() == {
        "bootstrap_servers": "broker:9092",
        "client_id": "pointsman",
        "security_protocol": "PLAINTEXT",
    }


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_user_has_a_password_from_a_file(mechanism: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    found = options(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism=mechanism, username="me", password_file=file
    )
    assert (found["security_protocol"], found["sasl_mechanism"]) == ("SASL_PLAINTEXT", mechanism)
    assert (found["sasl_plain_username"], found["sasl_plain_password"]) == ("me", "hunter2")
    assert "ssl_context" not in found


async def test_a_token_is_read_whenever_one_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    found = options(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", token_file=file)
    assert found["sasl_mechanism"] == "OAUTHBEARER"
    assert "sasl_plain_username" not in found
    tokens = found["sasl_oauth_token_provider"]
    assert await tokens.token() == "first"
    file.write_text("second\n")
    assert await tokens.token() == "second"
    with pytest.raises(UsageError, match="needs POINTSMAN_KAFKA_TOKEN_FILE"):
        options(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER")
    with pytest.raises(ValueError, match="POINTSMAN_KAFKA_TOKEN_FILE"):
        await (
            KafkaSettings("broker:9092", security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER")
            .client_options()["sasl_oauth_token_provider"]
            .token()
        )


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_who_is_spoken_to_over_tls_must_be_known_and_told_by_its_name(protocol: str) -> None:
    found = options(security_protocol=protocol, username="me", password="x")
    context = found["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_certificate_of_our_own_is_shown_with_its_key(tmp_path: Path) -> None:
    mine = Authority(tmp_path).issue("me")
    both = tmp_path / "both.pem"
    both.write_text(mine.file.read_text() + mine.key.read_text())
    options(security_protocol="SSL", certificate_file=mine.file, key_file=mine.key)
    options(security_protocol="SSL", certificate_file=both)
    with pytest.raises(UsageError, match="are no certificate with its key"):
        options(security_protocol="SSL", certificate_file=mine.file)
    with pytest.raises(UsageError, match=r"There is no certificate in .*me\.key \(POINTSMAN_KAFKA_CA_FILE\)"):
        options(security_protocol="SSL", ca_file=mine.key)


def test_each_setting_of_security_has_a_variable_and_no_secret_is_shown() -> None:
    environ = {
        **ADDRESS,
        "POINTSMAN_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "POINTSMAN_KAFKA_USERNAME": "me",
        "POINTSMAN_KAFKA_PASSWORD": "hunter2",
    }
    settings = Settings.resolve({}, environ)
    assert settings.found["kafka_password"].kind.secret
    assert "hunter2" not in repr(settings.kafka)
