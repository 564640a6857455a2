"""The source that follows files of Kubernetes YAML and JSON."""
