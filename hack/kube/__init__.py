"""A real Kubernetes control plane for tests: etcd, kube-apiserver and a few controllers on 127.0.0.1."""
