"""A password in an address of Postgres: refused, and never shown, whatever letters it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UnusableAddressError, UsageError
from engine.store.connecting import check_address, connect, masked, refuse_password


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:hunter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:hun/ter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:hun?te#r2@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql://me:hun@ter:2@db/x?sslmode=require", "postgresql://me:***@db/x?sslmode=require"),
        ("postgresql://me:a://b@db/x", "postgresql://me:***@db/x"),
        ("postgresql://:hunter2@db/x", "postgresql://:***@db/x"),
        ("postgresql://me@corp:hun/ter2@db/x", "postgresql://me@corp:***@db/x"),
        ("postgresql://me:hunter2@a:1,b:2/x", "postgresql://me:***@a:1,b:2/x"),
        ("me:hunter2@db/x", "me:***@db/x"),
        (
            "postgresql://db/x?password=hun/ter2&sslmode=require",
            "postgresql://db/x?password=***&sslmode=require",
        ),
        ("postgresql://db/x?sslpassword=hunter2", "postgresql://db/x?sslpassword=***"),
        ("host=db Password = 'hun ter2'", "host=db Password =***"),
    ],
)
def test_a_password_is_refused_and_masked(address: str, shown: str) -> None:
    assert masked(address) == shown
    with pytest.raises(UsageError, match="passfile") as refused:
        refuse_password(address)
    assert "ter2" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@db/x",
        "postgresql://me:@db/x",
        "postgresql://db:5432/x",
        "postgresql://me@[::1]:5432/x",
        "postgresql://me@a:5432,b:5433/x?target_session_attrs=read-write",
        "postgresql:///x?host=/tmp&passfile=/home/me/.pgpass",
        "postgresql://me@db:5432/x?passfile=/home/me%40corp/.pgpass",
    ],
)
def test_an_address_without_a_password_is_taken_and_shown_as_it_is(address: str) -> None:
    refuse_password(address)
    assert masked(address) == address


@given(
    user=st.text(st.characters(exclude_characters=":", codec="utf-8"), max_size=8),
    password=st.text(min_size=1, max_size=12),
)
def test_any_text_is_known_as_a_password(user: str, password: str) -> None:
    address = f"postgresql://{user}:{password}@db.example.org:5432/shop"
    assert masked(address) == f"postgresql://{user}:***@db.example.org:5432/shop"
    with pytest.raises(UsageError):
        refuse_password(address)


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:5432", "http://db/x", "host=db user=me", ""])
def test_what_is_no_address_is_refused_with_what_one_looks_like(address: str) -> None:
    with pytest.raises(UsageError, match="postgresql://user@host:5432/database"):
        check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@db/x",
        "postgres://db",
        "postgresql:///x?host=/tmp",
        "postgresql:///x?host=a:1,b&port=5432",
        "postgresql://me@[::1]/x",
        "postgresql://me@[fe80::1]:5433,db:5432/x?target_session_attrs=prefer-standby",
        "postgresql://me@%2Ftmp/x",
        "postgresql://",
    ],
)
def test_an_address_is_taken(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://u@127.0.0.1:99999/x", "the port is '99999', which is no number from 1 to 65535"),
        ("postgresql://u@db:-5/x", "the port is '-5'"),
        ("postgresql://u@db:0/x", "the port is '0'"),
        ("postgresql://u@db:abc/x", "the port is 'abc'"),
        ("postgresql://u@a:5432,b:70000/x", "the port is '70000'"),
        ("postgresql:///x?host=a:70000", "the port is '70000'"),
        ("postgresql:///x?host=a&port=5432,x", "the port is 'x'"),
        ("postgresql://u@[::1]:x/x", "the port is 'x'"),
        ("postgresql://u@[::1:1/x", "Invalid IPv6 URL"),
        ("postgresql://u@db/x?sslmode", "bad query field"),
        (
            "postgresql://u@db/x?target_session_attrs=foo",
            "target_session_attrs is 'foo'; it can be any, primary, standby, prefer-standby, read-write, read-only",
        ),
    ],
)
def test_what_no_address_can_have_is_named(address: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_address(address)
    assert said in str(refused.value)
    assert "postgresql://user@host:5432/database" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PGPORT", "99999", "PGPORT has '99999'"),
        ("PGPORT", "abc", "PGPORT has 'abc'"),
        ("PGPORT", "5432,-1", "PGPORT has '-1'"),
        ("PGTARGETSESSIONATTRS", "foo", "PGTARGETSESSIONATTRS is 'foo'; it can be any, primary,"),
    ],
)
def test_a_variable_that_cannot_be_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as refused:
        check_address("postgresql://me@db/x")
    assert said in str(refused.value)


async def test_what_only_shows_as_it_is_tried_is_bad_input() -> None:
    with pytest.raises(UnusableAddressError, match="Correct the address, or the variables PG"):
        await connect(f"postgresql://me@{'a' * 64}.example.org:1/x")
