//go:build e2e || bench

package podtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/runtime/cri"
)

const (
	// Image is what the manifests of Pod run.
	Image = "slipway.dev/subject:1"
	// PauseImage is the sandboxes'.
	PauseImage = "registry.k8s.io/pause:3.10.2"
)

// Options say what is special about a node. The zero value is a node with the containerd on PATH and nothing unusual.
type Options struct {
	Containerd string         // "" or "1.6" for the one on PATH, "2" for bin/k8s/containerd
	Instance   string         // of slipway, at most 22 characters; default: one that no other node has
	Name       string         // of the node; default "node"
	Program    string         // slipway; default SLIPWAY_TEST_PROGRAM, then bin/slipway
	Archives   []string       // images to import beside the subject's and pause's
	Kubelet    map[string]any // top-level fields of the KubeletConfiguration to set; nil removes one
	// CNI gives the node a network namespace of its own with a network for pods: see network.go.
	CNI bool
}

// Node is a node under test. Its methods fail the test for what they cannot do. They may be called by several
// goroutines at once, but for those that start or end the same process.
type Node struct {
	t       testing.TB
	options Options

	Name       string       // of the node, the suffix of its pods' names
	Instance   string       // of slipway
	Repository string       // the checkout
	Dir        string       // everything of this node, below the directory for temporary files
	Manifests  string       // the staticPodPath
	PodLogs    string       // the podLogsDir
	Config     string       // the KubeletConfiguration's file
	Socket     string       // containerd's
	Cgroup     string       // the cgroupRoot, such as /pt-4711-0
	Paths      config.Paths // of the instance; pods' directories are below Paths.Kubelet

	clients    sync.Mutex
	client     *cri.Client // see shared
	containerd *Process
	supervisor *Process
	others     []*Process
	netns      string   // path; "" for the host's
	lock       *os.File // see enter
}

// nodes counts those of this process: their names must differ.
var nodes atomic.Int32

// New makes a node whose containerd runs and has the images. No supervisor runs yet: see Supervise. The node goes away
// with the test.
func New(t testing.TB, o Options) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("podtest: containerd needs root")
	}
	_, file, _, _ := runtime.Caller(0)
	n := &Node{t: t, options: o, Repository: filepath.Join(filepath.Dir(file), "../../..")}
	id := fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), nodes.Add(1)-1)
	n.Name, n.Instance = orDefault(o.Name, "node"), orDefault(o.Instance, id)
	n.Paths = config.NewPaths(n.Instance)
	n.Dir, n.Cgroup = filepath.Join(os.TempDir(), id), "/"+id
	n.Manifests, n.PodLogs = filepath.Join(n.Dir, "manifests"), filepath.Join(n.Dir, "logs")
	n.Config, n.Socket = filepath.Join(n.Dir, "kubelet.yaml"), filepath.Join(n.Dir, "c.sock")

	n.enter()
	n.must(sweep())
	n.must(os.MkdirAll(n.Manifests, 0o755))
	n.must(os.WriteFile(filepath.Join(n.Dir, instanceFile), []byte(n.Instance), 0o644))
	t.Cleanup(n.close)
	n.must(n.writeConfig())
	if o.CNI {
		n.must(n.makeNetwork())
	}
	n.must(n.configureContainerd())
	n.StartContainerd()
	n.must(n.importImages())
	return n
}

// program is one of those that make programs builds.
func (n *Node) program(name string) string { return filepath.Join(n.Repository, "bin/k8s", name) }

// Slipway is the program under test.
func (n *Node) slipway() string {
	return orDefault(n.options.Program, orDefault(os.Getenv("SLIPWAY_TEST_PROGRAM"), filepath.Join(n.Repository, "bin/slipway")))
}

// writeConfig writes the KubeletConfiguration, which a kubelet takes too.
func (n *Node) writeConfig() error {
	fields := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"staticPodPath": n.Manifests, "podLogsDir": n.PodLogs, "containerRuntimeEndpoint": "unix://" + n.Socket,
		"cgroupDriver": "cgroupfs", "cgroupRoot": n.Cgroup,
	}
	maps.Copy(fields, n.options.Kubelet)
	maps.DeleteFunc(fields, func(_ string, v any) bool { return v == nil })
	data, err := yaml.Marshal(fields)
	if err != nil {
		return err
	}
	return os.WriteFile(n.Config, data, 0o644)
}

// CRI returns a connection to containerd for the length of the test. It finds a restarted containerd again.
func (n *Node) CRI() *cri.Client {
	n.t.Helper()
	client, err := cri.Dial(n.t.Context(), n.Socket)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { client.Close() })
	return client
}

// shared is the connection of the node's own methods.
func (n *Node) shared() *cri.Client {
	n.t.Helper()
	n.clients.Lock()
	defer n.clients.Unlock()
	if n.client == nil {
		n.client = n.CRI()
	}
	return n.client
}

func (n *Node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("podtest: %v", err)
	}
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// WaitFor polls until done, which also says how far things are, for the failure after the timeout.
func (n *Node) WaitFor(what string, timeout time.Duration, done func() (bool, string)) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := done()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			n.t.Fatalf("podtest: waited %s for %s: %s", timeout, what, state)
		case <-tick.C:
		}
	}
}
