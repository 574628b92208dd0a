// Package pods tests slipway supervise on pods of its own, with a real containerd: what survives, what is replaced, what
// goes away, and what a manifest's fields do to a container.
//
// Run with: go test -tags e2e ./cmd/internal/e2e/pods. It needs root and what `make build programs` makes. Unlike the tests of
// the whole control plane these use nothing of the machine but directories, cgroups and a containerd of their own.
package pods
