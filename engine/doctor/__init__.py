"""Whether everything that an engine stands on is as it must be: each thing looked at, with a cure where it is not."""

from engine.doctor.check import Check, Verdict
from engine.doctor.examining import examine

__all__ = ["Check", "Verdict", "examine"]
