"""Active health checks: the agent checks endpoints, and tells the workers which ones are unhealthy."""
