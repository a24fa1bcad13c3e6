"""Files of certificates and keys: renewed ones count from the next connection on; what others may read is told."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest

from connectors.credentials import RenewingContext, why_not_secret, why_unusable
from tests.authority import Authority, Certificate


async def shown_to(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """The common name of the certificate that a client shows."""
    names: asyncio.Queue[str] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        [[_, name]] = [one[0] for one in writer.get_extra_info("peercert")["subject"]]
        names.put_nowait(name)
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        name = await asyncio.wait_for(names.get(), 20)
        writer.close()
    return name


def put(certificate: Certificate, folder: Path, at: int) -> Certificate:
    """A copy, as of this time."""
    copy = Certificate(folder / "me.pem", folder / "me.key")
    copy.file.write_bytes(certificate.file.read_bytes())
    copy.key.write_bytes(certificate.key.read_bytes())
    for file in (copy.file, copy.key):
        os.utime(file, (at, at))
    return copy


async def test_a_certificate_that_is_renewed_is_shown_by_the_next_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown = authority.issue("server")
    server.load_cert_chain(shown.file, shown.key)
    server.load_verify_locations(authority.file)
    server.verify_mode = ssl.CERT_REQUIRED
    first, second = authority.issue("first"), authority.issue("second")
    mine = put(first, tmp_path, 1)
    context = RenewingContext.of(authority.file, mine.file, mine.key)
    assert await shown_to(server, context) == "first"
    mine.key.write_text("half of it")
    assert await shown_to(server, context) == "first"
    put(second, tmp_path, 2)
    assert await shown_to(server, context) == "second"
    mine.key.unlink()
    assert await shown_to(server, context) == "second"


@pytest.mark.parametrize(("mode", "fine"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False)])
def test_a_key_is_for_its_owner_alone(tmp_path: Path, mode: int, fine: bool) -> None:
    key = tmp_path / "me.key"
    key.touch()
    key.chmod(mode)
    why = why_not_secret("key", key)
    assert (why is None) == fine
    assert fine or f"chmod 600 {key}" in str(why)


@pytest.mark.parametrize(("mode", "fine"), [(0o640, True), (0o600, True), (0o644, False), (0o660, False)])
def test_root_may_let_a_group_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, fine: bool
) -> None:
    key = tmp_path / "me.key"
    key.touch()
    key.chmod(mode)
    found = os.stat_result((key.stat().st_mode, 0, 0, 1, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _: found)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert (why_not_secret("key", key) is None) == fine


def test_a_file_that_may_not_be_read_is_told_with_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    why = why_unusable("token", tmp_path / "token", "POINTSMAN_KAFKA_TOKEN_FILE")
    assert why == (
        f"The token {tmp_path / 'token'} (POINTSMAN_KAFKA_TOKEN_FILE) cannot be read: Permission denied. "
        "Let this user read it."
    )
