"""Kafka by client certificates and by tokens: the road, what is renewed meanwhile, and what is told who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka.admin import KafkaAdmin
from connectors.kafka.settings import KafkaSettings
from connectors.publisher import KafkaUnreachableError, Publisher
from connectors.source import SourceUnreachableError
from engine.store.connecting import Connection
from tests.authority import Authority
from tests.cli import pointsman, started
from tests.integration.test_cli_run import engine_on, pipeline, publish, reader_on, rows
from tests.secured_kafka import SecuredKafka, secured_kafka, token
from tests.services import Database, Kafka, Topics

LOST = '{"type": "order.paid", "order_id": "lost", "amount": 1}\n'
"""A dead letter, which the relay publishes."""
PUBLISHED = "select count(*) from pointsman.dead_letters where publishing = 'published'"
PUBLISHED_SECONDS = 60.0


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredKafka]:
    with secured_kafka() as server:
        yield server


def variables(settings: KafkaSettings) -> dict[str, str]:
    """The same as the command line is told it."""
    files = {"CA": settings.ca_file, "CERTIFICATE": settings.certificate_file, "KEY": settings.key_file}
    files["TOKEN"] = settings.token_file
    return {
        "KAFKA": settings.bootstrap,
        "KAFKA_SECURITY_PROTOCOL": settings.security_protocol,
        "KAFKA_SASL_MECHANISM": settings.sasl_mechanism,
        **{f"KAFKA_{name}_FILE": str(file) for name, file in files.items() if file is not None},
    }


async def why_refused(settings: KafkaSettings) -> str:
    with pytest.raises(SourceUnreachableError) as refused:
        async with KafkaAdmin(settings):
            pass
    assert str(refused.value).startswith(f"Kafka at {settings.bootstrap} ")
    return str(refused.value)


async def test_the_whole_road_goes_by_certificates(
    secured: SecuredKafka, database: Database, tmp_path: Path
) -> None:
    name = await Topics(secured.bootstrap)("orders", partitions=2)
    file = pipeline(tmp_path, name)
    by_certificate = variables(secured.certified())
    on = {**engine_on(database, Kafka(secured.by_certificate, "")), **by_certificate}
    sent = pointsman("publish", name, "-", "--key", "order_id", input=rows("o-1") + LOST, on=by_certificate)
    assert sent.code == 0, sent.err
    done = pointsman("run", file, "--until-idle", on=on)
    assert done.code == 0, done.err
    assert [one["key"] for one in pointsman("runs", "--json", on=reader_on(database)).json] == ["o-1"]
    [letter] = pointsman("dead-letters", "list", "--json", on=reader_on(database)).json
    assert letter["publishing"] == "published"
    for command in (("doctor", file), ("relay", "status"), ("positions", "list")):
        asked = pointsman(*command, on=on)
        assert asked.code == 0, (command, asked)
    asked = pointsman("relay", "status", on={**on, "KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"})
    assert (asked.code, "correct POINTSMAN_KAFKA_SECURITY_PROTOCOL" in asked.err) == (3, True), asked


async def test_who_is_not_known_by_a_certificate_is_told_why(secured: SecuredKafka, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "other").issue("client")
    known = secured.certified()
    ours, theirs, nowhere = secured.authority.file, tmp_path / "other.pem", tmp_path / "nowhere"
    refused: list[tuple[KafkaSettings, str]] = [
        (secured.certified(certificate_file=None, key_file=None), "may ask for a certificate of ours"),
        (
            secured.certified(certificate_file=stranger.file, key_file=stranger.key),
            f"may not take our certificate {stranger.file}",
        ),
        (secured.certified(ca_file=theirs), f"has no good certificate of the authority in {theirs}"),
        (
            secured.certified(ca_file=None),
            "has no good certificate of the authority in those that this system",
        ),
        (secured.certified(ca_file=nowhere), f"is not asked: There is no file {nowhere}"),
        (secured.certified(certificate_file=stranger.file), "key values mismatch"),
        (secured.certified(key_file=ours), "are no certificate with its key"),
        (
            replace(known, bootstrap=secured.by_certificate.replace("127.0.0.1", "localhost")),
            "its certificate is for another host",
        ),
        (replace(known, bootstrap=secured.bootstrap), "correct POINTSMAN_KAFKA_SECURITY_PROTOCOL"),
        (KafkaSettings(secured.by_certificate), "correct POINTSMAN_KAFKA_SECURITY_PROTOCOL"),
        (KafkaSettings(secured.by_password), "may ask for TLS or a password"),
        (replace(known, bootstrap="127.0.0.1:1"), "does not answer"),
        (replace(known, bootstrap="localhost:1"), "does not answer"),
        (replace(known, bootstrap="nobody.invalid:9092"), "does not answer"),
        (
            replace(known, bootstrap=f"127.0.0.1:1,{secured.bootstrap}"),
            "correct POINTSMAN_KAFKA_SECURITY_PROTOCOL",
        ),
    ]
    for settings, why in refused:
        assert why in await why_refused(settings)


async def test_who_is_not_known_by_a_password_or_a_token_is_told_why(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    bearer = secured.token_bearer(file)
    user = KafkaSettings(
        secured.by_password, security_protocol="SASL_PLAINTEXT", username="engine", password="guess"
    )
    assert "does not take the user engine with this password" in await why_refused(user)
    assert "does not offer PLAIN" in await why_refused(replace(user, bootstrap=secured.by_token))
    assert f"There is no file {file}, which POINTSMAN_KAFKA_TOKEN_FILE" in await why_refused(bearer)
    for written, why in {
        token("bearer", seconds=-5): f"does not take the token in {file}",
        "no token at all": f"does not take the token in {file}",
        "\n": "the file is empty",
    }.items():
        file.write_text(written)
        assert why in await why_refused(bearer)
        with pytest.raises(KafkaUnreachableError, match=why):
            async with Publisher(bearer, source="/shop"):
                pass


@pytest.mark.parametrize("command", ["run", "doctor", "publish"])
async def test_commands_end_with_the_sentence(
    secured: SecuredKafka, database: Database, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "token"
    file.write_text(token("bearer", seconds=-5))
    on = {**engine_on(database, Kafka("", "")), **variables(secured.token_bearer(file))}
    words: dict[str, tuple[Any, ...]] = {
        "run": ("run", pipeline(tmp_path, "orders")),
        "doctor": ("doctor",),
        "publish": ("publish", "orders", "-", "--key", "order_id"),
    }
    done = pointsman(*words[command], input=rows("o-1") if command == "publish" else None, on=on)
    said = " ".join((done.out + done.err).split())
    assert (done.code, f"does not take the token in {file}"[:40] in said) == (3, True), done
    assert "Traceback" not in said


async def test_a_token_that_is_renewed_counts_while_an_engine_goes_on(
    secured: SecuredKafka, database: Database, reader: Connection, tmp_path: Path
) -> None:
    name = await Topics(secured.bootstrap)("orders")
    superuser = Kafka(secured.bootstrap, "")
    file = tmp_path / "token"
    file.write_text(token("bearer"))
    on = {**engine_on(database, superuser), **variables(secured.token_bearer(file))}

    async def published(count: int) -> None:
        async with asyncio.timeout(PUBLISHED_SECONDS):
            while await reader.fetchval(PUBLISHED) < count:  # noqa: ASYNC110 - Postgres has no event for it
                await asyncio.sleep(0.05)

    with started("run", pipeline(tmp_path, name), on=on) as engine:
        await asyncio.to_thread(engine.wait_for, f"partitions: {name}/0")
        publish(superuser, name, LOST)
        await published(1)
        file.write_text(token("bearer", seconds=-5))
        await asyncio.to_thread(engine.wait_for, f"does not take the token in {file}")
        publish(superuser, name, LOST.replace("lost", "later"))
        file.write_text(token("bearer"))
        await published(2)
        engine.process.terminate()
        done = await asyncio.to_thread(engine.end)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
