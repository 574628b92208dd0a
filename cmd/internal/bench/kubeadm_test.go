//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ignoredChecks are of kubeadm's preflight. This project's machines have cgroups of version 1, which SystemVerification
// warns of or refuses, and pods with a network of their own, which need forwarding, are not measured.
const ignoredChecks = "SystemVerification,FileContent--proc-sys-net-ipv4-ip_forward"

// kubeadmConfig gives kubeadm all that would otherwise cost it time: the version instead of a question to the network,
// an address for the kubelet instead of a look-up in DNS. The kubelet is told to accept a machine like this one and to
// leave iptables alone.
const kubeadmConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration:
  criSocket: unix://%[1]s
  kubeletExtraArgs:
  - {name: node-ip, value: %[2]q}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: %[3]s
encryptionAlgorithm: %[4]s
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: %[5]s
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
`

// kubeadmConfigFile writes the configuration and returns its path.
func (b *bench) kubeadmConfigFile(algorithm string) (string, error) {
	path := filepath.Join(b.dir, "kubeadm-"+algorithm+".yaml")
	data := fmt.Sprintf(kubeadmConfig, b.engine.socket, b.address, b.kubernetes, algorithm, "cgroupfs")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		return "", fmt.Errorf("configuring kubeadm: %w", err)
	}
	return path, nil
}

// kubeadmInit is `kubeadm init` with all its phases, and a kubelet that starts when kubeadm has configured it, as its
// unit would.
func (b *bench) kubeadmInit(name, algorithm string) contender {
	var kubelet *process
	return contender{
		name: name,
		start: func(ctx context.Context) (outcome, error) {
			config, err := b.kubeadmConfigFile(algorithm)
			if err != nil {
				return outcome{}, err
			}
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			started := make(chan struct{})
			go func() {
				defer close(started)
				var err error
				if kubelet, err = b.startKubelet(ctx); err != nil {
					cancel(err)
				}
			}()
			o, err := timed(ctx, b.kubeadmEnv(), b.kubeadmArgv(config)...)
			if err != nil {
				cancel(nil)
			}
			<-started
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, kubelet.complaint())
			}
			return o, err
		},
		watcher: func() (int, error) {
			if kubelet == nil {
				return 0, errors.New("the kubelet was not started")
			}
			return kubelet.pid(), nil
		},
		stop: func(ctx context.Context) error {
			kubelet.stop(5 * time.Second)
			kubelet = nil
			return b.engine.clear(ctx)
		},
	}
}

func (b *bench) kubeadmArgv(config string, more ...string) []string {
	return append([]string{b.program("kubeadm"), "init", "--config", config, "--ignore-preflight-errors", ignoredChecks}, more...)
}

// kubeadmEnv lets kubeadm find the kubelet, whose version it asks for.
func (b *bench) kubeadmEnv() []string {
	return []string{"PATH=" + filepath.Dir(b.program("kubelet")) + ":" + os.Getenv("PATH")}
}

// startKubelet waits until kubeadm has written the kubelet's configuration, which it does last and in one piece, and
// starts the kubelet with the arguments of kubeadm's unit file. A unit could not know it sooner.
func (b *bench) startKubelet(ctx context.Context) (*process, error) {
	const dir = "/var/lib/kubelet/"
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		if info, err := os.Stat(dir + "config.yaml"); err == nil && info.Size() > 0 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-ticker.C:
		}
	}
	argv := []string{b.program("kubelet"), "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
		"--kubeconfig=/etc/kubernetes/kubelet.conf", "--config=" + dir + "config.yaml"}
	env, err := os.ReadFile(dir + "kubeadm-flags.env")
	if err != nil {
		return nil, fmt.Errorf("starting the kubelet: %w", err)
	}
	args, found := strings.CutPrefix(strings.TrimSpace(string(env)), "KUBELET_KUBEADM_ARGS=")
	if !found {
		return nil, fmt.Errorf("starting the kubelet: unknown kubeadm-flags.env: %q", env)
	}
	return startProcess(filepath.Join(b.dir, "kubelet.log"), append(argv, strings.Fields(strings.Trim(args, `"`))...)...)
}
