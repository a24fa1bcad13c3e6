"""Where engines listen, and whoever leaves something for them notifies: channels of Postgres, by name."""

from __future__ import annotations

INBOX = "pointsman_inbox"
"""Commands have been put there."""
OUTBOX = "pointsman_outbox"
"""A row is there to be published; with the number of its lane."""
POSITIONS = "pointsman_positions"
"""A person has set a position."""
VERSIONS = "pointsman_versions"
"""A version of a pipeline was registered that was not known; with the pipeline's number and the version."""
STEPS = "pointsman_steps"
"""An engine has let go of attempts that others may take up."""
