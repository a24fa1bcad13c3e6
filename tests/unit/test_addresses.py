"""A password in an address of Postgres: refused, and never shown, whatever letters it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.store.connecting import check_address, masked, refuse_password


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


@pytest.mark.parametrize("address", ["postgresql://me@db/x", "postgres://db", "postgresql:///x?host=/tmp"])
def test_an_address_is_taken(address: str) -> None:
    check_address(address)
