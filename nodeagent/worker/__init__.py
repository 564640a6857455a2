"""A worker: one process of the data plane."""
