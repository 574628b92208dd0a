// Package e2e runs slipway as its users do: the real binary, containerd, etcd and control plane, as root on this
// machine. Its tests have the build tag e2e; `make test` runs them on Linux as root.
package e2e
