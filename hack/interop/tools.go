//go:build tools

// Package tools pins the programs of others that `make interop-tools` builds.
package tools

import (
	_ "github.com/summerwind/h2spec/cmd/h2spec"
)
