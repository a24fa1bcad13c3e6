"""The store: the event log and all that commits with it."""
