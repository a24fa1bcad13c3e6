"""How a pipeline is run durably: batches, the event log, recovery, replay, command line."""
