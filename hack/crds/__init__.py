"""What KEDA and prometheus-operator publish to check manifests with (`make autoscaling-tools`)."""
