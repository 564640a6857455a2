"""What commands that people run need of the API server, beside the source: one reading, agents, objects."""
