"""Whether the books are right: hash chains, gaps, folds, positions, holds, and what waits to leave."""

from engine.reading.verify.report import Finding, VerifyReport
from engine.reading.verify.verifying import Progress, verify

__all__ = ["Finding", "Progress", "VerifyReport", "verify"]
