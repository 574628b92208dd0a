//go:build e2e || bench

package podtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// podNetwork is a network of loopback and a veth pair per pod, routed, without a bridge. The plugins are those of
// https://www.cni.dev; Debian has them in containernetworking-plugins.
const podNetwork = `{
  "cniVersion": "0.4.0", "name": "podtest",
  "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.211.0.0/24"}}]
}
`

// makeNetwork gives containerd, pods on the host's network and the supervisor a network namespace of the node's own, in
// which pods can have addresses.
func (n *Node) makeNetwork() error {
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "ptp")); err == nil {
			return n.makeNamespace()
		}
	}
	return errors.New("no CNI plugins in /opt/cni/bin or /usr/lib/cni; install containernetworking-plugins")
}

func (n *Node) makeNamespace() error {
	name := filepath.Base(n.Dir)
	n.netns = "/run/netns/" + name
	dir := filepath.Join(n.Dir, "cni")
	return errors.Join(
		ip("netns", "add", name), ip("-n", name, "link", "set", "lo", "up"), os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "10-podtest.conflist"), fmt.Appendf(nil, podNetwork, filepath.Join(n.Dir, "ipam")), 0o644),
	)
}

func (n *Node) removeNetwork() error {
	if n.netns == "" {
		return nil
	}
	return removeNamespace(filepath.Base(n.Dir))
}

func removeNamespace(name string) error {
	if _, err := os.Stat("/run/netns/" + name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return ip("netns", "delete", name)
}

func ip(args ...string) error {
	cmd := exec.Command("ip", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w\n%s", cmd, err, bytes.TrimSpace(out))
	}
	return nil
}

// InNetwork runs a program of the host's where pods on the host's network are, for at most 30 s.
func (n *Node) InNetwork(argv ...string) Result {
	n.t.Helper()
	return n.run(n.inNetwork(argv)...)
}

// inNetwork is the command line that runs argv in the node's network, in the process that is started.
func (n *Node) inNetwork(argv []string) []string {
	if n.netns == "" {
		return argv
	}
	return append([]string{"nsenter", "--net=" + n.netns}, argv...) // ip netns exec would hide /sys/fs/cgroup
}

// PodIP is the address of a sandbox, "" on the host's network.
func (n *Node) PodIP(sandbox string) string {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), commandTimeout)
	defer cancel()
	status, err := n.shared().PodSandboxStatus(ctx, sandbox)
	n.must(err)
	return status.GetNetwork().GetIp()
}
