// Package config holds slipway's configuration files to the real kubeadm. Its tests need the programs of `make programs`
// and the tag e2e; they touch nothing of the machine.
package config
