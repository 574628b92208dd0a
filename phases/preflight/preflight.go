// Package preflight finds what would keep a control plane from running before anything is written.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/supervisor"
)

// New returns the phase. It changes nothing.
func New() phases.Phase {
	return phases.Phase{
		Name:  "preflight",
		Short: "Check that this machine can run a control plane",
		Long: "Check rights, size, ports, files, programs, images and other owners of this machine.\n" +
			"Checks have kubeadm's names; --ignore-preflight-errors=NAME,… or =all turns their errors into warnings.",
		Run: run,
	}
}

func run(ctx context.Context, env *phases.Env) error {
	cfg := env.Config
	seen, err := env.Host.Inspect(ctx, Question(cfg))
	if errors.Is(err, host.ErrNotInspected) {
		env.Report(phases.Event{Kind: phases.Note, Text: "would check this machine"})
		return judge(checkConfiguration(cfg), cfg.IgnorePreflightErrors, env.Report)
	}
	if err != nil {
		return err
	}
	// Rights come first, alone: without them the other answers may be wrong.
	if err := judge(checkPrivileges(seen), cfg.IgnorePreflightErrors, env.Report); err != nil {
		return err
	}
	problems := slices.Concat(checkMachine(cfg, seen), checkConfiguration(cfg), Certificates(env.Files, cfg, env.Now()))
	return judge(problems, cfg.IgnorePreflightErrors, env.Report)
}

// Foresee returns what would end a run of the phase once the control plane that is here is reset, as an *Error, or nil: what
// slipway made counts as gone. files are what the reset leaves, and seen answers a Question whose Emptied is set. Warnings
// are left to the phase, which tells them.
func Foresee(cfg *config.Cluster, seen *host.Inspection, files artifact.Store, now time.Time) error {
	after := *seen
	after.Listeners, after.Paths = maps.Clone(seen.Listeners), maps.Clone(seen.Paths)
	maps.DeleteFunc(after.Listeners, func(_ uint16, l host.Listener) bool { return l.Ours })
	maps.DeleteFunc(after.Paths, func(_ string, at host.PathState) bool { return at.Ours })
	problems := append(Check(cfg, &after), Certificates(files, cfg, now)...)
	for i, p := range problems {
		if p.Name == "ImagePull" && cfg.CRISocket == "" {
			problems[i].Fix = fmt.Sprintf("put docker or OCI archives of them into %s or another --image-archives DIRECTORY, or make the registry reachable; "+
				"slipway's own image store goes with the reset", cfg.Paths.ImageArchives)
		}
	}
	return judge(problems, cfg.IgnorePreflightErrors, func(phases.Event) {})
}

// Severity says whether a problem ends init.
type Severity int

const (
	Warning Severity = iota
	Fatal
)

// String returns "warning" or "error".
func (s Severity) String() string {
	if s == Fatal {
		return "error"
	}
	return "warning"
}

// Problem is one thing that is not as it should be.
type Problem struct {
	Name     string // of the check, as kubeadm calls it: "Port-6443"
	Severity Severity
	Message  string // what is wrong, with its evidence
	Fix      string // what to do
	Later    bool   // of no consequence before this node gets a kubelet, or pods with a network of their own
}

// String is "[NAME] message: fix".
func (p Problem) String() string {
	if p.Fix == "" {
		return fmt.Sprintf("[%s] %s", p.Name, p.Message)
	}
	return fmt.Sprintf("[%s] %s: %s", p.Name, p.Message, p.Fix)
}

// Error is every problem that ends init.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("this machine is not ready:")
	var names []string
	for _, p := range e.Problems {
		fmt.Fprintf(&b, "\n  %s", p)
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	fmt.Fprintf(&b, "\n  to go on regardless: --ignore-preflight-errors=%s", strings.Join(names, ","))
	return b.String()
}

// judge reports warnings and ignored errors, and returns the errors that are left as one *Error, or nil.
func judge(problems []Problem, ignored []string, report func(phases.Event)) error {
	var fatal []Problem
	for _, p := range problems {
		if p.Severity == Fatal && !ignores(ignored, p.Name) {
			fatal = append(fatal, p)
			continue
		}
		report(phases.Event{Kind: phases.Warning, Text: p.String()})
	}
	if fatal == nil {
		return nil
	}
	return &Error{Problems: fatal}
}

// ignores takes names in any case, and "all".
func ignores(ignored []string, name string) bool {
	return slices.ContainsFunc(ignored, func(i string) bool {
		return strings.EqualFold(i, name) || strings.EqualFold(i, "all")
	})
}

// Question returns what Check needs to know about the machine.
func Question(cfg *config.Cluster) host.Query {
	q := host.Query{
		Paths:    manifests(cfg),
		Sysctls:  []string{ipForward, ipv6Forward},
		Units:    []string{kubeletUnit, firewallUnit},
		Lookup:   endpointLookup(cfg),
		NodeName: cfg.NodeName,
		Socket:   host.SocketPath(cfg.CRISocket),
		Images:   supervisor.Images(cfg),
		Archives: cfg.Paths.ImageArchives,
		Pull:     cfg.ImagePullPolicy != corev1.PullNever,
	}
	for _, p := range ports(cfg) {
		q.Ports = append(q.Ports, p.number)
	}
	for _, p := range laterPorts {
		q.Ports = append(q.Ports, p.number)
	}
	if cfg.CRISocket == "" {
		q.Programs = []string{"containerd", "containerd-shim-runc-v2", "runc"}
	}
	q.Programs = append(q.Programs, laterPrograms...)
	for _, c := range []config.Component{cfg.APIServer, cfg.ControllerManager, cfg.Scheduler} {
		for _, v := range c.ExtraVolumes {
			q.Paths = append(q.Paths, v.HostPath)
		}
	}
	if etcd := cfg.Etcd.External; etcd != nil {
		q.Etcd = host.ExternalEtcd{Endpoints: etcd.Endpoints, CAFile: etcd.CAFile, CertFile: etcd.CertFile, KeyFile: etcd.KeyFile}
		for _, path := range []string{etcd.CAFile, etcd.CertFile, etcd.KeyFile} {
			if path != "" {
				q.Paths = append(q.Paths, path)
			}
		}
	}
	if cfg.Etcd.Local != nil {
		q.Disk = cfg.Etcd.Local.DataDir
		q.Paths = append(q.Paths, cfg.Etcd.Local.DataDir)
	}
	return q
}
