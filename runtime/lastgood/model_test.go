package lastgood

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// model is a pod as a worker sees it: commands change it, and after each of them the judge is asked.
type model struct {
	start, now time.Time
	in         Input
	trial      Trial
	attempts   map[string]uint32
	failures   int
}

func newModel() *model {
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	return &model{start: start, now: start, attempts: map[string]uint32{}, in: Input{Seen: lifecycle.Observed{Images: map[string]lifecycle.Image{}}}}
}

// do performs a command, and returns whether the judge is to be asked.
func (m *model) do(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	args := strings.Fields(rest)
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	after := func(i int) string { return strings.Join(args[min(i, len(args)):], " ") }
	m.in.Took = 0
	switch word {
	case "want": // VERSION [OPTION…]
		return m.want(arg(0), args[1:])
	case "away": // the manifest is removed
		m.in.Want = nil
	case "supervisor": // starts anew
		m.trial = Trial{}
	case "tick": // DURATION: time passes
		d, err := time.ParseDuration(arg(0))
		m.now = m.now.Add(d)
		return err
	case "jump": // DURATION: the clock is set
		d, err := time.ParseDuration(arg(0))
		m.now = m.now.Add(d)
		return err
	case "took": // DURATION: an action kept the worker
		d, err := time.ParseDuration(arg(0))
		m.now, m.in.Took = m.now.Add(d), d
		return err
	case "state":
		return m.state(arg(0))
	case "reason":
		m.in.Reason = rest
	case "hold": // what is waited for
		m.in.Seen.Held = rest
	case "sandbox": // ID VERSION, or ID dead
		m.sandbox(arg(0), arg(1))
	case "run": // NAME SANDBOX
		m.run(arg(0), arg(1))
	case "gone": // NAME: nothing is seen of it any more
		m.in.Seen.Containers = m.others(arg(0))
	case "exit": // NAME CODE [REASON]
		code, err := strconv.Atoi(arg(1))
		c := m.container(arg(0))
		c.State, c.ExitCode, c.Reason, c.Probe, c.Hook = lifecycle.ContainerExited, int32(code), arg(2), lifecycle.Probe{}, lifecycle.Hook{}
		return err
	case "ready":
		m.container(arg(0)).Probe = lifecycle.Probe{Started: true, Ready: true}
	case "unready":
		m.container(arg(0)).Probe = lifecycle.Probe{Started: true, Message: after(1)}
	case "startup", "liveness": // NAME MESSAGE: the probe has failed
		p := &m.container(arg(0)).Probe
		if word == "startup" {
			p.StartupFailed = after(1)
		} else {
			p.LivenessFailed = after(1)
		}
	case "hook": // NAME running|failed|done
		m.container(arg(0)).Hook.State = map[string]lifecycle.HookState{"running": lifecycle.HookRunning, "failed": lifecycle.HookFailed}[arg(1)]
	case "restart": // NAME: somebody asks
		m.in.Seen.Restart = map[string]string{m.container(arg(0)).ID: "asked"}
	case "watched": // FINGERPRINT of the files; containers keep theirs
		m.in.Seen.Watched = arg(0)
	case "image": // REF present|MESSAGE
		m.image(arg(0), after(1))
	case "fail": // CONTAINER|- TEXT
		m.failures++
		m.in.Failure = &Failure{At: time.Unix(int64(m.failures), 0), Container: strings.Trim(arg(0), "-"), Text: after(1)}
	case "ok": // the actions succeeded
		m.in.Failure = nil
	default:
		return fmt.Errorf("no such command")
	}
	return nil
}

// want makes a version: UID or UID/HASH, with one container "main" and what the options add.
func (m *model) want(version string, options []string) error {
	uid, hash, own := strings.Cut(version, "/")
	if !own {
		hash = uid
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "p-node", Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "main", Image: "main:1", ImagePullPolicy: corev1.PullIfNotPresent}}},
	}
	always := corev1.ContainerRestartPolicyAlways
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "within":
			pod.Annotations[AnnotationReadyWithin] = value
		case "policy":
			pod.Spec.RestartPolicy = corev1.RestartPolicy(value)
		case "pull":
			pod.Spec.Containers[0].ImagePullPolicy = corev1.PullPolicy(value)
		case "own": // the container's own restart policy
			policy := corev1.ContainerRestartPolicy(value)
			pod.Spec.Containers[0].RestartPolicy = &policy
		case "second": // another container with the same image
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "second", Image: "main:1", ImagePullPolicy: corev1.PullPolicy(value)})
		case "init":
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "setup", Image: "setup:1"})
		case "sidecar":
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "proxy", Image: "proxy:1", RestartPolicy: &always})
		default:
			return fmt.Errorf("no such option %q", o)
		}
	}
	m.in.Want = &manifest.StaticPod{Pod: pod, UID: uid, SpecHash: hash, Source: "/etc/kubernetes/manifests/p.yaml"}
	m.in.State, m.in.Reason = lifecycle.Starting, ""
	return nil
}

func (m *model) state(name string) error {
	for s := lifecycle.Absent; s <= lifecycle.Terminating; s++ {
		if s.String() == name {
			m.in.State = s
			return nil
		}
	}
	return fmt.Errorf("no such state")
}

func (m *model) sandbox(id, what string) {
	for i := range m.in.Seen.Sandboxes {
		if m.in.Seen.Sandboxes[i].ID == id {
			m.in.Seen.Sandboxes[i].Ready = false
			return
		}
	}
	uid, hash, own := strings.Cut(what, "/")
	if !own {
		hash = uid
	}
	m.in.Seen.Sandboxes = append(m.in.Seen.Sandboxes, lifecycle.Sandbox{ID: id, UID: uid, SpecHash: hash, Ready: true})
}

// run starts a container; the one before it stays as the runtime keeps it.
func (m *model) run(name, sandbox string) {
	m.attempts[name]++
	uid := ""
	for _, s := range m.in.Seen.Sandboxes {
		if s.ID == sandbox {
			uid = s.UID
		}
	}
	m.in.Seen.Containers = append(m.in.Seen.Containers, lifecycle.Container{
		ID: fmt.Sprintf("%s-%d", name, m.attempts[name]), Name: name, SandboxID: sandbox, UID: uid, Attempt: m.attempts[name],
		State: lifecycle.ContainerRunning, CreatedAt: m.now, Watched: m.in.Seen.Watched,
	})
}

// container is the newest of that name.
func (m *model) container(name string) *lifecycle.Container {
	for i := len(m.in.Seen.Containers) - 1; i >= 0; i-- {
		if m.in.Seen.Containers[i].Name == name {
			return &m.in.Seen.Containers[i]
		}
	}
	return &lifecycle.Container{}
}

func (m *model) others(name string) []lifecycle.Container {
	var out []lifecycle.Container
	for _, c := range m.in.Seen.Containers {
		if c.Name != name {
			out = append(out, c)
		}
	}
	return out
}

func (m *model) image(ref, what string) {
	m.failures++
	switch im := m.in.Seen.Images[ref]; what {
	case "present":
		m.in.Seen.Images[ref] = lifecycle.Image{Present: true}
	default:
		im.Err, im.FailedAt = what, time.Unix(int64(m.failures), 0)
		m.in.Seen.Images[ref] = im
	}
}

// judge asks, and prints the answer.
func (m *model) judge() string {
	v, t := Judge(m.now, m.in, m.trial)
	m.trial = t
	var b strings.Builder
	fmt.Fprintf(&b, "%8s  ", m.now.Sub(m.start))
	if v.Fresh {
		b.WriteString("NOW ")
	}
	switch v.Outcome {
	case GoodVersion:
		b.WriteString("good")
	case GivenUp:
		fmt.Fprintf(&b, "given up: %s [%s]", v.Reason, v.Container)
	default:
		fmt.Fprintf(&b, "undecided, %s left", v.Left)
	}
	if !v.Wake.IsZero() {
		fmt.Fprintf(&b, ", again in %s", v.Wake.Sub(m.now))
	}
	return b.String()
}
