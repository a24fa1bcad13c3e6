"""Ids that are derived, and the numbers that stand for them."""

from __future__ import annotations

import uuid

from statemachines.events import Address
from statemachines.ids import derived_id, number_of_id

NUMBER_MAX = 2**60


def test_a_derived_id_is_a_uuid_of_version_8() -> None:
    for index in range(64):
        derived = derived_id("n", "shop", "o-1", 2, 3, index)
        read = uuid.UUID(derived)
        assert str(read) == derived
        assert (read.version, read.variant) == (8, uuid.RFC_4122)
        assert read == Address("n", "shop", "o-1", 2, 3).derive(index)


def test_numbers_of_ids_differ_as_the_ids_do() -> None:
    # A number that two of them had would have one taken for what another did not return from.
    moves = [(generation, sequence) for generation in range(20) for sequence in range(50)]
    found = {
        number_of_id(derived_id("n", "shop", "o-1", *move, index)) for move in moves for index in range(20)
    }
    assert len(found) == 20 * 50 * 20


def test_the_number_of_an_id_is_what_its_digits_say() -> None:
    assert number_of_id("89abcdef-0000-8000-8000-000001234567") == 0x89ABCDEF1234567
    assert number_of_id("ffffffff-ffff-8fff-bfff-ffffffffffff") == NUMBER_MAX - 1


def test_ids_stay_what_they_are() -> None:
    # They are in logs and outboxes, and with those who heard of them: another way to derive them would double effects.
    move = Address("n", "shop", "o-1", 2, 3)
    assert move.derive_text(0) == "788fb0ab-ea0d-8f3e-b86c-252c1a16a63a"
    assert move.id_of_asked(0) == "d94b93b6-cfc0-8983-bbe8-172dca218196"
    assert move.id_of_execution("2.1") == "42e84c30-daec-8332-8015-4798aa50ae1c"
