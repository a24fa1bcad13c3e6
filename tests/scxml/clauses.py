"""Clauses of the SCXML recommendation, each with a small chart, its events, and what must come of them.

Worked out by hand from the text. They are data and know no interpreter: `CLAUSES` is for any that can be built from a
`Document`. Those with other `semantics` than the default are for the oracle alone.
"""

from __future__ import annotations

from tests.scxml import clauses_conflicts, clauses_done, clauses_history, clauses_moves, clauses_selection
from tests.scxml.clause import Clause

CLAUSES: list[Clause] = [
    *clauses_selection.SELECTION,
    *clauses_selection.NAMES,
    *clauses_selection.QUEUES,
    *clauses_conflicts.CONFLICTS,
    *clauses_moves.ORDER,
    *clauses_moves.DOMAINS,
    *clauses_moves.ENTRIES,
    *clauses_history.MEMORY,
    *clauses_history.DEFAULTS,
    *clauses_done.DONE,
    *clauses_done.FAILURES,
]
