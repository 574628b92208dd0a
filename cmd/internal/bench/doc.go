// Package bench measures slipway on this machine, with kubeadm beside it under the same conditions.
//
// The measurements are the one test of the build tag bench. It starts real control planes on the machine's own paths, so
// it runs as root and only where no Kubernetes is. `make bench` runs it and prints its tables.
package bench
