// Package lifecycle decides what to do next about one static pod. It has no clock, no goroutines and no I/O.
package lifecycle

import (
	"time"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Observed is what the runtime shows of one full name ("namespace/name") at one instant: every sandbox and container
// that carries the name, of any uid. Order does not matter.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container
	// Images says for each image reference of the wanted pod what is known. A missing key means "not asked yet".
	Images map[string]Image
	// Held names what the pod's start-after annotation still waits for; "" when nothing. It holds back only the
	// making of a new sandbox, never the restart of a container.
	Held string
}

// Sandbox is one pod sandbox.
type Sandbox struct {
	ID          string
	UID         string // of the pod
	Attempt     uint32
	Ready       bool
	HostNetwork bool
	IP          string // "" for host network
	SpecHash    string // what the supervisor wrote; "" for a sandbox that something else made
	CreatedAt   time.Time
}

// ContainerState is the CRI's.
type ContainerState int

const (
	ContainerCreated ContainerState = iota
	ContainerRunning
	ContainerExited
	ContainerUnknown
)

// Container is one container, joined with its latest probe results.
type Container struct {
	ID, Name, SandboxID, UID string
	Attempt                  uint32
	State                    ContainerState
	Hash                     string // io.kubernetes.container.hash
	CreatedAt                time.Time
	StartedAt                time.Time
	FinishedAt               time.Time
	ExitCode                 int32
	Reason, Message          string
	ImageRef                 string
	Probe                    Probe
}

// Probe is the latest result per kind for one running container.
type Probe struct {
	Started        bool   // startup probe succeeded, or there is none
	Ready          bool   // readiness probe succeeds, or there is none and the container is started
	StartupFailed  string // why the container must be restarted; "" when it must not
	LivenessFailed string
	Message        string // last failing probe's output, for status
}

// Image is what is known of an image reference.
type Image struct {
	Present  bool
	ID       string
	Pulling  bool
	Err      string    // why the last pull failed
	FailedAt time.Time // when it failed
}

// ActionKind is one thing the supervisor can do.
type ActionKind int

const (
	EnsureImage     ActionKind = iota // ask the store, pull if the policy says so: Image
	RunSandbox                        // make directories and cgroup, then the sandbox: Attempt
	StartContainer                    // create and start: Name, Attempt, SandboxID
	StopContainer                     // preStop, then stop with Grace: ID
	StopSandbox                       // ID
	RemoveContainer                   // ID
	RemoveSandbox                     // ID
	CleanUp                           // the pod's directories and cgroup: UID
)

// Action is one effect, in the order of Decision.Actions. Actions of the same Group (>0) are independent of each
// other and may run at the same time. Every action carries the reason it is taken.
type Action struct {
	Kind      ActionKind
	ID        string // container or sandbox
	SandboxID string
	Name      string // container
	UID       string // of the pod it concerns
	Image     string
	Attempt   uint32
	Grace     time.Duration
	Group     int
	Why       string
}

// State is where the pod is. Successors are listed at each value; the table test holds Decide to them.
type State int

const (
	Absent      State = iota // nothing wanted, nothing there → Held, Pulling, Starting, Terminating
	Held                     // waits for another pod → Pulling, Starting, Absent
	Pulling                  // an image is not there yet → Starting, Held, Terminating, Absent
	Starting                 // sandbox or containers are being made → Running, BackOff, Terminating
	Running                  // every container runs → BackOff, Starting, Terminating, Completed
	BackOff                  // a container waits for its restart → Starting, Running, Terminating
	Completed                // restartPolicy keeps every container ended → Terminating, Starting
	Terminating              // what is there must go → Absent, Held, Pulling, Starting
)

// Decision is what Decide says: where the pod is, what to do now, and when to look again without an event (zero:
// only on an event). Why is one line for a human.
type Decision struct {
	State   State
	Actions []Action
	Wake    time.Time
	Why     string
}

// Memory is what must be remembered between two calls and cannot be read from the runtime. Decide returns the next
// value; the caller keeps it and passes it back. The zero value is a supervisor that has just started.
type Memory struct {
	BackOff map[string]BackOffEntry // by container name
	Pull    map[string]BackOffEntry // by image
	// Grace of the last pod that ran under this name by uid, so that a removed manifest's pod is stopped with its own
	// grace period.
	Last      *manifest.StaticPod
	CleanedUp map[string]bool // uids whose CleanUp has been asked for
}

// BackOffEntry is one back-off in force. The sequence is the kubelet's: 0, 10, 20, 40, 80, 160, 300 s, reset after 10 minutes of running.
type BackOffEntry struct {
	Delay       time.Duration // the one in force
	Since       time.Time     // FinishedAt of the exit that set it
	ContainerID string        // whose exit set it
}
