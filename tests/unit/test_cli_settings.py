"""Settings: what is in force, and where it came from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.settings import Settings, unknown_variables


def test_an_option_goes_before_a_variable_and_that_before_the_default() -> None:
    environ = {"POINTSMAN_POSTGRES": "postgresql://from/environment", "POINTSMAN_NAMESPACE": "shop"}
    settings = Settings.resolve({"postgres": "postgresql://from/option", "namespace": None}, environ)
    assert settings.postgres == "postgresql://from/option"
    assert settings.found["postgres"].source == "option --postgres"
    assert settings.namespace == "shop"
    assert settings.found["namespace"].source == "environment POINTSMAN_NAMESPACE"
    assert settings.value("kafka_security_protocol") == "PLAINTEXT"
    assert settings.found["kafka_security_protocol"].source == "default"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.resolve({}, {"POINTSMAN_NAMESPACE": ""}).namespace == "default"


def test_a_missing_address_is_a_sentence_that_says_how_to_give_it() -> None:
    settings = Settings.resolve({}, {})
    with pytest.raises(UsageError, match="--postgres ADDRESS or set POINTSMAN_POSTGRES"):
        _ = settings.postgres
    with pytest.raises(UsageError, match="--kafka ADDRESS or set POINTSMAN_KAFKA"):
        _ = settings.kafka


def test_every_limit_has_a_variable() -> None:
    environ = {"POINTSMAN_LIMIT_BATCH_RECORDS_MAX": "500", "POINTSMAN_LIMIT_INBOX_POLL_SECONDS": "0.25"}
    limits = Settings.resolve({}, environ).limits
    assert limits.batch_records_max == 500
    assert limits.inbox_poll_seconds == 0.25


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("POINTSMAN_LIMIT_BATCH_RECORDS_MAX", "many", "whole number"),
        ("POINTSMAN_LIMIT_BATCH_RECORDS_MAX", "0", "more than nothing"),
        ("POINTSMAN_LIMIT_COMPLAIN_SECONDS", "inf", "finite"),
        ("POINTSMAN_LIMIT_CACHE_RUNS_MAX", "10", "at least 4000"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(variable: str, value: str, said: str) -> None:
    settings = Settings.resolve({}, {variable: value})
    with pytest.raises(UsageError, match=said):
        _ = settings.limits


def test_a_limit_that_there_is_not_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError, match="Did you mean 'POINTSMAN_LIMIT_BATCH_RECORDS_MAX'"):
        Settings.resolve({}, {"POINTSMAN_LIMIT_BATCH_RECORD_MAX": "5"})


def test_variables_that_kubernetes_makes_for_a_service_of_this_name_do_no_harm() -> None:
    environ = {"POINTSMAN_SERVICE_HOST": "10.0.0.1", "POINTSMAN_PORT": "tcp://10.0.0.1:9090"}
    assert Settings.resolve({}, environ).namespace == "default"
    assert unknown_variables(environ) == ["POINTSMAN_PORT", "POINTSMAN_SERVICE_HOST"]


def test_a_choice_is_taken_in_any_case_and_another_is_refused() -> None:
    settings = Settings.resolve({}, {"POINTSMAN_KAFKA_SECURITY_PROTOCOL": "sasl_ssl"})
    assert settings.value("kafka_security_protocol") == "SASL_SSL"
    with pytest.raises(UsageError, match="it can be PLAINTEXT, SSL"):
        Settings.resolve({}, {"POINTSMAN_KAFKA_SECURITY_PROTOCOL": "TLS"})


@pytest.mark.parametrize("name", ["a b", "", "ü", "-x", "x" * 101])
def test_a_namespace_must_be_fit_for_the_name_of_a_topic(name: str) -> None:
    with pytest.raises(UsageError, match="--namespace"):
        Settings.resolve({"namespace": name}, {})


def test_a_password_comes_from_a_file_or_the_environment_and_not_from_both(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file\n")
    secured = {
        "POINTSMAN_KAFKA": "broker:9092",
        "POINTSMAN_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "POINTSMAN_KAFKA_USERNAME": "me",
    }
    by_file = Settings.resolve({}, {**secured, "POINTSMAN_KAFKA_PASSWORD_FILE": str(file)}).kafka
    assert by_file.client_options()["sasl_plain_password"] == "from file"
    by_variable = Settings.resolve({}, {**secured, "POINTSMAN_KAFKA_PASSWORD": "from variable"}).kafka
    assert by_variable.client_options()["sasl_plain_password"] == "from variable"
    assert "from variable" not in repr(by_variable)
    both = {**secured, "POINTSMAN_KAFKA_PASSWORD_FILE": str(file), "POINTSMAN_KAFKA_PASSWORD": "x"}
    with pytest.raises(UsageError, match="not both"):
        _ = Settings.resolve({}, both).kafka
    with pytest.raises(UsageError, match="POINTSMAN_KAFKA_PASSWORD_FILE"):
        _ = Settings.resolve({}, secured).kafka


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"POINTSMAN_KAFKA_CA_FILE is '/nowhere/ca\.pem', and there is no such"
    ):
        Settings.resolve({}, {"POINTSMAN_KAFKA_CA_FILE": "/nowhere/ca.pem"})


def test_a_file_that_is_no_certificate_is_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")
    environ = {
        "POINTSMAN_KAFKA": "broker:9092",
        "POINTSMAN_KAFKA_SECURITY_PROTOCOL": "SSL",
        "POINTSMAN_KAFKA_CA_FILE": str(file),
    }
    with pytest.raises(UsageError, match="security settings"):
        _ = Settings.resolve({}, environ).kafka


def test_the_first_position_may_be_a_time_in_utc_where_no_zone_is_given() -> None:
    assert Settings.resolve({}, {}).first == "earliest"
    assert Settings.resolve({"from": "latest"}, {}).first == "latest"
    assert Settings.resolve({"from": "2026-01-31T12:00"}, {}).first == datetime(2026, 1, 31, 12, tzinfo=UTC)
    with pytest.raises(UsageError, match="yesterday"):
        _ = Settings.resolve({"from": "yesterday"}, {}).first


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("broker:9092", "broker:9092"),
        ("broker", "broker:9092"),
        ("a:1, b ,10.0.0.1:65535", "a:1,b:9092,10.0.0.1:65535"),
        ("::1", "[::1]:9092"),
        ("[::1]", "[::1]:9092"),
        ("[fe80::1%eth0]:7", "[fe80::1%eth0]:7"),
    ],
)
def test_an_address_of_kafka_has_its_port_in_all_that_is_said_of_it(given: str, meant: str) -> None:
    assert Settings.resolve({"kafka": given}, {}).kafka.bootstrap == meant


@pytest.mark.parametrize(
    "given",
    [
        ":",
        ":9092",
        "a:",
        "a:x",
        "a:0",
        "a:65536",
        "a:1,",
        ",a:1",
        "a b:1",
        "PLAINTEXT://a:1",
        "u@a:1",
        "[::1",
        "a\udcff:1",
    ],
)
def test_what_is_no_address_of_kafka_is_refused_by_its_option_or_variable(given: str) -> None:
    with pytest.raises(UsageError, match=r"^--kafka is "):
        Settings.resolve({"kafka": given}, {})
    with pytest.raises(UsageError, match=r"^POINTSMAN_KAFKA is "):
        Settings.resolve({}, {"POINTSMAN_KAFKA": given})


def test_an_option_that_is_empty_is_refused_and_not_taken_for_its_default() -> None:
    for name in ("postgres", "kafka", "group", "instance", "executors", "from", "health_host"):
        with pytest.raises(UsageError, match="it cannot be empty: say which, or leave it out"):
            Settings.resolve({name: ""}, {})
