//go:build tools

// Package tools pins the programs of Kubernetes that `make kube-assets` builds.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
)
