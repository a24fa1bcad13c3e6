"""What became of an event, in sentences, from what was recorded at the time."""

from engine.reading.explain.answers import Answer, Change, Explanation
from engine.reading.explain.asking import explain
from engine.reading.explain.found import Sent

__all__ = ["Answer", "Change", "Explanation", "Sent", "explain"]
