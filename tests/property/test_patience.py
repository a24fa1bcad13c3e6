"""How long a broker waits for records of some partitions: as long as it may, and never until there are no others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.patience import BUSY_WAIT_MILLISECONDS, IDLE_WAIT_MILLISECONDS, next_wait

FULL = 1_000_000
HALF = FULL // 2
BUSY_SECONDS = BUSY_WAIT_MILLISECONDS / 1_000
AT_HAND = st.integers(HALF, FULL)
"""Of who has less is asked for more, instead."""
ANSWERED = st.sampled_from([0.01, 0.1, 0.5, 1.0])
"""After which part of the time the broker answers, since there is a record."""


@given(
    st.lists(st.integers(0, int(HALF / BUSY_SECONDS)), min_size=1, max_size=4),
    st.lists(st.tuples(st.lists(AT_HAND, min_size=4, max_size=4), ANSWERED), max_size=12),
)
def test_what_is_taken_as_fast_as_ever_lasts_until_the_answer(
    per_second: list[int], rounds: list[tuple[list[int], float]]
) -> None:
    wait = BUSY_WAIT_MILLISECONDS
    for at_hand, answered in rounds:
        most = wait / 1_000
        pairs = [*zip(at_hand, per_second, strict=False)]
        assert all(one >= int(rate * most) for one, rate in pairs), "one was empty before the broker answered"
        seconds = most * answered
        wait = next_wait(wait, [(one, one - int(rate * seconds)) for one, rate in pairs], seconds)
        assert BUSY_WAIT_MILLISECONDS <= wait <= IDLE_WAIT_MILLISECONDS


@given(st.lists(st.floats(0, 0.1), max_size=20))
def test_it_is_at_most_twice_what_the_broker_has_really_waited_for_so_far(waited: list[float]) -> None:
    wait, longest = BUSY_WAIT_MILLISECONDS, 0.0
    for seconds in waited:
        longest = max(longest, min(seconds, wait / 1_000))
        wait = next_wait(wait, [(FULL, FULL)], min(seconds, wait / 1_000))
        assert wait <= max(BUSY_WAIT_MILLISECONDS, 2_000 * longest)


@given(st.integers(0, HALF))
def test_it_grows_to_as_long_as_is_right_and_stays_there(per_second: int) -> None:
    wait, waits = BUSY_WAIT_MILLISECONDS, []
    for _ in range(6):
        wait = next_wait(wait, [(FULL, FULL - int(per_second * wait / 1_000))], wait / 1_000)
        waits.append(wait)
    assert waits == [20, 40, 80, 100, 100, 100]


def test_it_is_short_again_at_once_where_the_others_are_taken_fast() -> None:
    assert next_wait(100, [(FULL, FULL), (FULL, HALF)], 0.1) == 50
    assert next_wait(100, [(FULL, 0)], 0.1) == BUSY_WAIT_MILLISECONDS
    # Of one that has nothing, something is to be asked for at once, however that came.
    assert next_wait(100, [(FULL, FULL), (0, 0)], 0.1) == BUSY_WAIT_MILLISECONDS
    # What comes meanwhile says nothing of how fast it is taken.
    assert next_wait(50, [(HALF, FULL)], 0.05) == 100
