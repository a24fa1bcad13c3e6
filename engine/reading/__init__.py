"""What can be asked of a store: runs, histories, explanations, checks; and what a person may set right.

Everything here is a function of a connection (``engine.store.connecting.connect(dsn, for_engine=False)``)
that answers with frozen dataclasses; ``as_json`` of each gives the field names that ``engine/cli/README.md``
documents, and that stay.
Reading needs the reader's role only. No pipeline's code is run, but by ``replay``.
"""

from engine.reading.asking import Asked, Became, ask_drop, ask_redrive, wait_until_taken
from engine.reading.breakers import BreakerView, list_breakers
from engine.reading.choosing import Chosen, ask_of_runs, choose_runs, send_to_runs
from engine.reading.completing import ask_complete
from engine.reading.dead_letters import (
    DeadLetterDetails,
    DeadLetterView,
    count_dead_letters,
    list_dead_letters,
    show_dead_letter,
)
from engine.reading.definitions import DefinitionView, list_definitions
from engine.reading.editing import ask_edit
from engine.reading.errors import NotFoundError
from engine.reading.explain import Answer, Change, Explanation, explain
from engine.reading.history import EventView, HistoryRow, history
from engine.reading.mapping import ask_to_map, choose_to_map, would_not_map
from engine.reading.operating import (
    AskedOfRun,
    Done,
    ask_of_pipeline,
    ask_of_run,
    ask_send,
    end_told,
    wait_until_done,
)
from engine.reading.pauses import PausedPipeline, list_pauses
from engine.reading.positions import PositionSet, PositionView, list_positions, set_position, set_positions
from engine.reading.replay import Mismatch, ReplayReport, RunReplayed, replay
from engine.reading.runs import RunView, count_runs, find_view, list_runs
from engine.reading.show import RunAt, show
from engine.reading.values import RecordView
from engine.reading.verify import Finding, VerifyReport, verify

__all__ = [
    "Answer",
    "Asked",
    "AskedOfRun",
    "Became",
    "BreakerView",
    "Change",
    "Chosen",
    "DeadLetterDetails",
    "DeadLetterView",
    "DefinitionView",
    "Done",
    "EventView",
    "Explanation",
    "Finding",
    "HistoryRow",
    "Mismatch",
    "NotFoundError",
    "PausedPipeline",
    "PositionSet",
    "PositionView",
    "RecordView",
    "ReplayReport",
    "RunAt",
    "RunReplayed",
    "RunView",
    "VerifyReport",
    "ask_complete",
    "ask_drop",
    "ask_edit",
    "ask_of_pipeline",
    "ask_of_run",
    "ask_of_runs",
    "ask_redrive",
    "ask_send",
    "ask_to_map",
    "choose_runs",
    "choose_to_map",
    "count_dead_letters",
    "count_runs",
    "end_told",
    "explain",
    "find_view",
    "history",
    "list_breakers",
    "list_dead_letters",
    "list_definitions",
    "list_pauses",
    "list_positions",
    "list_runs",
    "replay",
    "send_to_runs",
    "set_position",
    "set_positions",
    "show",
    "show_dead_letter",
    "verify",
    "wait_until_done",
    "wait_until_taken",
    "would_not_map",
]
