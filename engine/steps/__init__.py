"""The steps of runs: their attempts in one engine, and what became of them until it is durable."""
