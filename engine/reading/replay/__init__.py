"""What the recorded events come to when they run through a definition again."""

from engine.reading.replay.replaying import replay
from engine.reading.replay.report import Difference, Mismatch, ReplayReport, RunReplayed

__all__ = ["Difference", "Mismatch", "ReplayReport", "RunReplayed", "replay"]
