"""How the agent steers its workers: supervision, plan deltas, and counters in shared memory."""
