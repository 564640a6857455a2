"""Active health checks: the agent asks endpoints whether they are well, and tells the workers who is not."""
