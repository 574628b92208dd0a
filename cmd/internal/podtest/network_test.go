//go:build e2e

package podtest

import (
	"net"
	"testing"
)

// TestPodNetwork needs curl and Debian's containernetworking-plugins.
func TestPodNetwork(t *testing.T) {
	for _, version := range []string{"1.6", "2"} {
		t.Run(version, func(t *testing.T) {
			n := New(t, Options{Containerd: version, CNI: true})
			n.Supervise()
			n.Put("own.yaml", Pod("own").PodNetwork().Container("main", "listen::8080", "forever").YAML())
			c := n.WaitRunning("own", "main", patience)
			ip := n.PodIP(c.Sandbox)
			if parsed := net.ParseIP(ip); parsed == nil {
				t.Errorf("the pod's address is %q", ip)
			}
			if r := n.InNetwork("curl", "-sS", "--max-time", "5", "http://"+ip+":8080/who"); r.Stdout != "/who\n" {
				t.Errorf("the node cannot reach the pod: %+v", r)
			}
			n.Remove("own.yaml")
			n.WaitGone("own", patience)
		})
	}
}
