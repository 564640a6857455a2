//go:build tools

// Package tools pins the programs that render manifests, for `make manifest-tools` and nothing else.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
	_ "sigs.k8s.io/kustomize/kustomize/v5"
)
