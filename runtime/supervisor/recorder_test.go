package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// recorder passes calls on and keeps those with an effect, in words.
type recorder struct {
	*cri.Client
	t     *testing.T
	start time.Time

	onCall func() // may be nil

	mu    sync.Mutex
	lines []line
	names map[string]string // by id
}

type line struct {
	at   time.Duration
	pod  string
	text string
}

// name is a sandbox or container in words: "etcd v1 #0", "etcd/etcd v1 #0".
func (r *recorder) name(id string) string {
	r.mu.Lock()
	known := r.names[id]
	r.mu.Unlock()
	if known != "" {
		return known
	}
	all := list(r.t.Context(), r.Client, "", "") // its maker did not hear of it, or it is not the supervisor's
	for _, sb := range all.sandboxes {
		if sb.GetId() == id {
			return sandboxName(sb.GetMetadata(), sb.GetLabels())
		}
	}
	for _, c := range all.containers {
		if c.GetId() == id {
			return containerName(r.name(c.GetPodSandboxId()), c.GetMetadata())
		}
	}
	return "unknown " + id
}

func sandboxName(m *runtimeapi.PodSandboxMetadata, labels map[string]string) string {
	return fmt.Sprintf("%s %s #%d", strings.TrimSuffix(m.GetName(), "-"+nodeName), cmp.Or(labels["version"], "FOREIGN"), m.GetAttempt())
}

func containerName(sandbox string, m *runtimeapi.ContainerMetadata) string {
	pod, version, _ := strings.Cut(sandbox, " ")
	version, _, _ = strings.Cut(version, " ")
	return fmt.Sprintf("%s/%s %s #%d", pod, m.GetName(), version, m.GetAttempt())
}

func (r *recorder) learn(id, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[id] = name
}

func (r *recorder) call(pod, text string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		text += ": " + err.Error()
	}
	r.lines = append(r.lines, line{time.Since(r.start), pod, text})
	if r.onCall != nil {
		r.onCall()
	}
}

// take returns the lines since it was last called. What several pods did at one instant is in the order of their names,
// and what one did to several containers in the order of theirs: they may happen at the same time.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.lines, func(a, b line) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.pod, b.pod)) })
	for i := 0; i < len(r.lines); {
		n := i + 1
		for n < len(r.lines) && r.lines[n].at == r.lines[i].at && r.lines[n].kind() == r.lines[i].kind() {
			n++
		}
		slices.SortStableFunc(r.lines[i:n], func(a, b line) int { return cmp.Compare(a.subject(), b.subject()) })
		i = n
	}
	var out strings.Builder
	for _, l := range r.lines {
		fmt.Fprintf(&out, "%8s  %s\n", l.at.Round(time.Millisecond), l.text)
	}
	r.lines = nil
	return out.String()
}

// forget drops what was recorded.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.names = nil, map[string]string{}
}

// kind is what was done and to which pod. Creating and starting are one thing: each container's own is in order.
func (l line) kind() string {
	pod := strings.TrimSuffix(l.pod, " hook")
	verb, _, _ := strings.Cut(l.text, pod)
	if verb == "start " {
		verb = "create "
	}
	return verb + pod
}

// subject is to what it was done.
func (l line) subject() string {
	_, subject, _ := strings.Cut(l.text, strings.TrimSuffix(l.pod, " hook"))
	return subject
}

func podOf(name string) string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '/' })[0]
}

// RunPodSandbox also holds the supervisor to its first rule: the old one is gone before the new one is made.
func (r *recorder) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	name := sandboxName(config.GetMetadata(), config.GetLabels())
	pod := config.GetMetadata().GetNamespace() + "/" + config.GetMetadata().GetName()
	for _, c := range list(r.t.Context(), r.Client, pod, "").containers {
		if c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.t.Errorf("sandbox %s is made while %s runs", name, r.name(c.GetId()))
		}
	}
	id, err := r.Client.RunPodSandbox(ctx, config, handler)
	if err == nil {
		r.learn(id, name)
	}
	r.call(podOf(name), "run sandbox "+name, err)
	return id, err
}

func (r *recorder) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	id, err := r.Client.CreateContainer(ctx, sandboxID, config, sandbox)
	name := containerName(r.name(sandboxID), config.GetMetadata())
	if err == nil {
		r.learn(id, name)
	}
	r.call(podOf(name), "create "+name, err)
	return id, err
}

// on records a call about one sandbox or container, which may be gone afterwards.
func (r *recorder) on(verb, id string, call func() error) error {
	name := r.name(id)
	err := call()
	r.call(podOf(name), verb+" "+name, err)
	return err
}

func (r *recorder) StartContainer(ctx context.Context, id string) error {
	return r.on("start", id, func() error { return r.Client.StartContainer(ctx, id) })
}

// StopContainer is two lines if it takes time.
func (r *recorder) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	name, began := r.name(id), time.Now()
	r.call(podOf(name), fmt.Sprintf("stop %s, grace %s", name, grace.Round(time.Millisecond)), nil)
	err := r.Client.StopContainer(ctx, id, grace)
	if err != nil || time.Since(began) > 0 {
		r.call(podOf(name), "stopped "+name, err)
	}
	return err
}

func (r *recorder) RemoveContainer(ctx context.Context, id string) error {
	return r.on("remove", id, func() error { return r.Client.RemoveContainer(ctx, id) })
}

func (r *recorder) StopPodSandbox(ctx context.Context, id string) error {
	return r.on("stop sandbox", id, func() error { return r.Client.StopPodSandbox(ctx, id) })
}

func (r *recorder) RemovePodSandbox(ctx context.Context, id string) error {
	return r.on("remove sandbox", id, func() error { return r.Client.RemovePodSandbox(ctx, id) })
}

func (r *recorder) PullImage(ctx context.Context, ref string, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	r.call(ref, "pull "+ref, nil)
	id, err := r.Client.PullImage(ctx, ref, sandbox)
	if err != nil {
		r.call(ref, "pull of "+ref+" failed", nil)
	}
	return id, err
}
