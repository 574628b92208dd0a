// Package view tests what slipway tells of pods, and does in them, without any API server: ps, status, logs, exec, events,
// restart and the local API, with a real containerd and a real supervisor.
//
// Run with: go test -tags e2e ./cmd/internal/e2e/view. It needs root and what `make build programs` makes.
package view
