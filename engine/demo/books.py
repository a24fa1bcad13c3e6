"""The books of the others in the demo, held beside what the runs say: what was done, and what given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from statemachines.shipped.outside import Entry

SERVICES = ("charge", "refund", "reserve", "release", "ship")
KEEPS = frozenset({"reserving", "shipping", "under_way", "delivered"})
"""States of orders whose money stays where it is."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the ledger says, in numbers; and what would be wrong, which is to be nothing."""

    calls: int
    done: Mapping[str, int]
    """By service: for how many keys it has done something."""
    refused: int
    """Cards."""
    again: int
    """Calls that came once more under a key for which all was done: answered, and nothing done."""
    twice: list[str]
    """Orders for which a service did the same under two keys."""
    not_given_back: list[str]
    """Orders that have come to nothing, and whose charge was not refunded."""
    given_back: list[str]
    """Orders that go on, or have arrived, and whose charge was refunded all the same."""

    @property
    def are_right(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.twice or self.not_given_back or self.given_back)

    def as_json(self) -> dict[str, Any]:
        """The documented fields."""
        return {
            "calls": self.calls,
            "done": dict(self.done),
            "refused": self.refused,
            "again": self.again,
            "twice": self.twice,
            "not_given_back": self.not_given_back,
            "given_back": self.given_back,
        }


def audit(entries: Sequence[Entry], states: Mapping[str, str]) -> Books:
    """Look through the ledger; ``states`` are those that the orders are in."""
    effects = {(one.service, one.who, one.key) for one in entries if one.answer}
    done = Counter(service for service, _, _ in effects)
    by_order = Counter((service, who) for service, who, _ in effects)
    charged = {who for service, who, _ in effects if service == "charge"}
    refunded = {who for service, who, _ in effects if service == "refund"}
    return Books(
        calls=len(entries),
        done={service: done[service] for service in SERVICES},
        refused=sum(one.service == "charge" and not one.answer for one in entries),
        again=sum(1 for one in entries if one.answer) - len(effects),
        twice=sorted({who for (_, who), count in by_order.items() if count > 1}),
        not_given_back=sorted(who for who in charged - refunded if states.get(who) not in KEEPS),
        given_back=sorted(who for who in refunded if states.get(who) in KEEPS),
    )
