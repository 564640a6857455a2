"""What people and Prometheus read from a running agent: health, metrics, the plan."""
