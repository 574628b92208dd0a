// Package host is the seam between the phases and the machine: what they learn from it, and what they start on it.
package host

import (
	"context"
	"net/netip"
	"time"
)

// Host acts on the machine. Live does; Narrator only tells what Live would do.
type Host interface {
	// Inspect looks at the machine for preflight. A host that only narrates returns ErrNotInspected.
	Inspect(ctx context.Context, q Query) (*Inspection, error)
	// EnsureRuntime returns once the container runtime answers. It starts slipway's own containerd if r.Own is set and
	// it does not run yet, and starts it again if its configuration changed since.
	EnsureRuntime(ctx context.Context, r Runtime, report func(Progress)) error
	// EnsureImages returns once every reference is in the runtime's store: from the store, an archive, or the registry.
	EnsureImages(ctx context.Context, im Images, report func(Progress)) error
	// EnsureSupervisor returns once the supervisor of this instance serves its socket.
	EnsureSupervisor(ctx context.Context, s Supervisor, report func(Progress)) error
	// WaitReady returns once every pod is ready, or an error that says which is not and why. It ends before the
	// deadline when a pod cannot become ready.
	WaitReady(ctx context.Context, w Wait, report func(Progress)) error
}

// Progress is a step inside long work.
type Progress struct {
	Text        string
	Done, Total int64
	Unit        string // "B", "images", "pods"; "" for a plain message
}

// Runtime says which container runtime the pods run in.
type Runtime struct {
	Own     bool
	Socket  string // path of the unix socket, without scheme
	Program string // absolute path of containerd, for Own; "" looks it up on PATH
}

// Images says what must be in the store.
type Images struct {
	Refs     []string
	Archives string // directory of docker or OCI archives
	Pull     bool   // whether the registry may be asked
	Serial   bool   // one pull at a time
	Socket   string // path of the unix socket, without scheme
}

// Supervisor says how `slipway supervise` is to be started.
type Supervisor struct {
	KubeletConfig string
	NodeName      string
	Instance      string // "" for the host's only instance
	Kubeconfig    string // of the node, to show its pods in the Kubernetes API; "" shows them nowhere
	Runtime       string // endpoint, "unix:///…"; "" leaves it to the KubeletConfiguration
}

// Wait says what is waited for.
type Wait struct {
	Namespace string
	Pods      []string            // names as in the manifests, without the node
	Needs     map[string][]string // which of Pods a pod cannot run without: its exits count only once those are ready
	// Versions are those that the pods must be of, by name, as their manifests have them on disk: what runs of an earlier
	// version is not what is waited for. A pod without one may be of any. Live fills in what is missing here.
	Versions map[string]string
	// Former are runs that do not count any more, by name: such a pod is ready only in a later one, of any version.
	Former map[string]Run
	// Verdict waits for what the supervisor makes of the versions: it is left to it to say that a crash loop does not
	// heal, and one that it gives up ends the wait when the last good one is ready again.
	Verdict  bool
	NodeName string
	Deadline time.Duration
	Steady   time.Duration // how long all must have been ready, without a break
}

// Query names what Inspect is to look at.
type Query struct {
	Ports    []uint16
	Programs []string // looked up on PATH
	Paths    []string // whether they exist, and are empty
	Sysctls  []string // "net.ipv4.ip_forward"
	Disk     string   // directory whose file system's free space is wanted; it need not exist yet
	NodeName string
	Socket   string // of a runtime that the user brings, path without scheme; "" for slipway's own
	Images   []string
	Archives string
	Pull     bool     // whether the registry may be asked
	Emptied  bool     // slipway's own store will be empty by then: what it holds now does not count
	Units    []string // of systemd, "firewalld.service"
	Lookup   string   // a host name to resolve; "" for none
	Etcd     ExternalEtcd
}

// Inspection is what was seen. It is plain data, so that the checks over it are pure.
type Inspection struct {
	EUID          int
	CPUs          int
	MemoryMiB     int
	DiskFreeMiB   int // of Query.Disk; -1 when it could not be told
	Swap          bool
	Kernel        string
	Now           time.Time
	Addresses     []netip.Addr
	Listeners     map[uint16]Listener
	Programs      map[string]string // name → path; absent when not found
	Paths         map[string]PathState
	Sysctls       map[string]string // absent when the kernel has no such key
	Runtime       RuntimeState
	Cgroups       []string // controllers
	Owners        []Owner  // signs of another distribution or of a running kubelet
	HostnameOK    bool     // resolves through the hosts file, no DNS is asked
	MissingImages []string // neither in the store, nor in an archive, nor in a registry that answers
	RegistryErr   string   // why the registry is no help for MissingImages; "" when there are none

	KernelLacks    []string // options of its configuration, without CONFIG_; none where that cannot be read
	CgroupVersion  int      // 1 or 2
	Clock          Clock
	Routes         []Route
	Leftovers      []Owner // signs of software that is or was here and is not in the way
	Units          map[string]UnitState
	Lookup         Lookup        // of Query.Lookup
	EtcdVersions   []EtcdVersion // of Query.Etcd, in its order
	KubeletVersion string        // "v1.36.3"; "" where there is no kubelet
}

// Listener is who listens on a TCP port.
type Listener struct {
	Address string
	PID     int // 0 when it could not be told
	Program string
	Ours    bool // a container of this instance, left running by an earlier init
}

// PathState is what is at a path. Ours is set for what slipway recorded as its own.
type PathState struct{ Exists, Dir, Empty, Link, Ours bool }

// RuntimeState is what a user's runtime answered.
type RuntimeState struct {
	Name, Version string
	CgroupDriver  string // "" when it does not tell
	Err           string // why it did not answer
}

// Owner is a sign that something else runs Kubernetes on this host.
type Owner struct {
	Name     string // "kubelet", "k3s", "kubeadm"
	Evidence string // a pid and its command line, or a path
}
