// Package lifecycle decides what to do next about one static pod. It has no clock, no goroutines and no I/O.
//
// A caller owns one full name ("namespace/name"). It looks at the runtime, calls Decide, does the actions in order,
// and starts over until a decision has no actions; then it sleeps until Decision.Wake or until something changes.
// An action that fails ends the round: the next look decides anew.
//
//	          ┌──────► Held ────┐
//	Absent ───┤                 ├──► Starting ◄──► Pulling, BackOff
//	   ▲      └─────────────────┘       │  ▲
//	   │                                ▼  │
//	   └────────── Terminating ◄───── Running ───► Completed
//	                    │
//	                    └── the manifest came back, or another version ──► Held, Starting
package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Observed is what the runtime shows of one full name at one instant: every sandbox and container that carries the
// name, of any uid. Order does not matter.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container
	// Images says for each image reference of the wanted pod what is known. A missing key means "not asked yet", so
	// a caller that has reason to doubt an entry deletes it.
	// Images(pod) lists the references.
	Images map[string]Image
	// Held names what the pod's start-after annotation waits for; "" when nothing. It holds back the first sandbox that
	// this supervisor makes for a version of the pod, never a restart; but an exit while Held is not "" costs no back-off:
	// the wait that follows it is over once Held is "" again, and later ones are no longer for it.
	Held string
	// LastAttempt is the highest attempt of each container of the wanted pod that left a trace outside the runtime,
	// such as its log file: restart counts continue from it when the containers are gone. It may be nil.
	LastAttempt map[string]uint32
	// Left names the uids whose CleanUp was tried and failed: it is asked for again. It may be nil.
	Left []string
	// Restart names the running containers, by id, that are to be restarted whatever their policy and back-off say, and
	// why: somebody asked for it. The id of one that has ended meanwhile, or before, and waits in its back-off ends the
	// back-off; any other is ignored, and so are init containers that run to their end. It may be nil.
	Restart map[string]string
	// Watched is the fingerprint of the host files that the wanted pod's restart-on-change annotation names, as they are
	// now. "" when it names none or when they cannot be read: then nothing is compared.
	Watched string
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
	Hash                     string // io.kubernetes.container.hash, as ContainerHash; "" when there is none: not compared
	CreatedAt                time.Time
	StartedAt                time.Time
	FinishedAt               time.Time
	ExitCode                 int32
	Reason, Message          string
	ImageRef                 string
	// TerminationGrace is the grace period recorded at its creation (io.kubernetes.pod.terminationGracePeriod), for a
	// container whose manifest is no longer known. 0 means that none was recorded.
	TerminationGrace time.Duration
	Probe            Probe
	Hook             Hook
	// Watched is the fingerprint of the watched host files when the container was made; "" when there was none: not
	// compared.
	Watched string
}

// HookState is how far a post-start hook is.
type HookState int

const (
	HookDone    HookState = iota // it has ended well, or there is none
	HookRunning                  // until it ends the container counts as not started, and the next one waits
	HookFailed                   // the container must be restarted, with back-off
)

// Hook is a container's post-start hook.
type Hook struct {
	State   HookState
	Message string // why it failed, or what it waits for
}

// Started tells whether a running container counts as started: its post-start hook has ended well and its startup
// probe has succeeded.
func (c *Container) Started() bool { return c.Hook.State == HookDone && c.Probe.Started }

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
	Err      string    // why the last try failed; with Present it matters only to imagePullPolicy Always
	FailedAt time.Time // when it failed; another time is another failure
}

// ActionKind is one thing the supervisor can do.
type ActionKind int

const (
	EnsureImage     ActionKind = iota // ask the store, pull if Pull says so: Image, Pull
	RunSandbox                        // make directories and cgroup, then the sandbox: UID, Attempt
	StartContainer                    // create and start: Name, Attempt, SandboxID
	StopContainer                     // preStop, then stop, both within Grace: ID, Name, Attempt
	StopSandbox                       // ID
	RemoveContainer                   // ID, Name, Attempt
	RemoveSandbox                     // ID
	CleanUp                           // the pod's directories and cgroup: UID
)

// Action is one effect, in the order of Decision.Actions. Neighbours with the same Group (>0) are independent of each
// other and may run at the same time. Every action carries the reason it is taken.
type Action struct {
	Kind      ActionKind
	ID        string // container or sandbox
	SandboxID string
	Name      string // container
	UID       string // of the pod it concerns
	Image     string
	Pull      corev1.PullPolicy // the strictest of the containers that use Image
	Attempt   uint32
	Grace     time.Duration // at least 2 s
	Group     int
	Why       string
}

// State is where the pod is. What may follow without two things happening at once is listed at each value; the tests
// hold Decide to it.
type State int

const (
	Absent      State = iota // nothing wanted, nothing there → anything: a supervisor that has just started finds what it finds
	Held                     // waits for another pod → Pulling, Starting, Completed, Terminating, Absent
	Pulling                  // an image is not there yet → Starting, BackOff, Running, Completed, Held, Terminating
	Starting                 // sandbox or containers are being made or stopped for a restart → Pulling, Running, BackOff, Completed, Held, Terminating
	Running                  // every container runs, or has ended as it may → BackOff, Pulling, Starting, Completed, Terminating
	BackOff                  // a container waits for its restart → Pulling, Starting, Running, Completed, Held, Terminating
	Completed                // restartPolicy or the deadline keeps every container ended → Starting, Pulling, BackOff, Held, Terminating
	Terminating              // what is there must go → Absent, Held, Pulling, Starting, Running, BackOff, Completed
)

// Decision is what Decide says: where the pod is, what to do now, and when to look again without an event (zero:
// only on an event). Why is one line for a human.
type Decision struct {
	State   State
	Actions []Action
	Wake    time.Time
	Why     string
	// Reason is not "" when the pod has failed for something that its exit codes do not tell: the kubelet's word for it,
	// ReasonDeadlineExceeded or ReasonPostStartHook. Its phase is Failed then.
	Reason string
}

const (
	// ReasonDeadlineExceeded stands in status.reason of a pod whose activeDeadlineSeconds are over.
	// Kubernetes v1.36.3 pkg/kubelet/active_deadline.go:31.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonPostStartHook says that a container was stopped for its post-start hook and must not be restarted.
	// Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container.go:77.
	ReasonPostStartHook = "PostStartHookError"
)

// Memory is what must be remembered between two calls and cannot be read from the runtime. Decide returns the next
// value; the caller keeps it and passes it back, also after an action failed. The zero value is a supervisor that has
// just started. A Memory that was passed in is never changed.
type Memory struct {
	// Version is the one that everything up to Finishing speaks of.
	Version  string
	BackOff  map[string]BackOffEntry // by container name
	Spared   map[string]BackOffEntry // for exits while another pod is waited for, by container name: they do not count in BackOff
	Pull     map[string]BackOffEntry // by image
	Attempts map[string]uint32       // highest attempt seen, by container name
	Asked    map[string]uint32       // for pull policy Always: the attempt the image was last asked for, by container name, or name/volume
	Killed   map[string]string       // containers stopped in order to be restarted, by id: why
	Failed   map[string]string       // containers stopped for a fault that the exit code does not tell, and not restarted, by id: why

	// Active is how long the version has been active at ActiveAt, for its deadline; a zero ActiveAt: not begun.
	Active   time.Duration
	ActiveAt time.Time
	// Finishing is when a pod that has ended began to be stopped: what still runs of it shares one grace period.
	Finishing time.Time

	// Last is the last pod that ran under this name: a removed manifest's pod is stopped in its own order, with its
	// own grace period.
	Last *manifest.StaticPod
	// Doomed holds the sandboxes whose termination has begun, by id, with the time it began. What is doomed is never
	// adopted again: a manifest that is put back while its pod terminates gets a new sandbox.
	Doomed map[string]time.Time
	// Owed holds the uids whose CleanUp is still to be asked for, once nothing of theirs is seen. True: before the uid
	// is used again, because what is left is of an earlier life of the pod.
	Owed map[string]bool
}

// BackOffEntry is one back-off in force.
type BackOffEntry struct {
	Delay time.Duration // the one in force
	Since time.Time     // when it began; never later than the time of the last Decide
	Cause string        // what set it: the id of the container that exited, or the time of the failed pull
}
