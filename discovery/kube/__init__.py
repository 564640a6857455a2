"""The source that watches a Kubernetes API server."""
