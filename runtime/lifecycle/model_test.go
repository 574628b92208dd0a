package lifecycle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// model is a runtime in memory and the caller that the package comment describes. It enforces the runtime's protocol:
// an action that the real one would refuse, or that would break a promise of Decide, is an error.
type model struct {
	policy     Policy
	now        time.Time
	want       *manifest.StaticPod
	mem        Memory
	held       string
	sandboxes  []Sandbox
	containers []Container
	images     map[string]Image
	dirs       map[string]bool
	left       []string

	registry string          // how it answers: "" at once, "slow", or an error
	stubborn map[string]bool // containers that a stop does not end at once
	probes   bool            // a container that starts is neither started nor ready yet
	broken   map[ActionKind]bool
	ids      int
	states   []State
	print    func(format string, args ...any)
}

func newModel() *model {
	return &model{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), images: map[string]Image{}, dirs: map[string]bool{},
		stubborn: map[string]bool{}, broken: map[ActionKind]bool{}, print: func(string, ...any) {},
	}
}

// pod makes a manifest from words: "v1 containers=a,b init=i sidecars=s policy=Never grace=5s pull=Always uid=u
// network=pod hook". Every word is part of the version.
func pod(words ...string) *manifest.StaticPod {
	spec := corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, HostNetwork: true}
	uid, pull, names := "uid-"+strings.Join(words, "-"), corev1.PullIfNotPresent, "etcd"
	container := func(name string) corev1.Container {
		return corev1.Container{Name: name, Image: name + ":" + words[0], ImagePullPolicy: pull}
	}
	var initial, sidecars string
	var hook bool
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "containers":
			names = value
		case "init":
			initial = value
		case "sidecars":
			sidecars = value
		case "policy":
			spec.RestartPolicy = corev1.RestartPolicy(value)
		case "grace":
			d, err := time.ParseDuration(value)
			if err != nil {
				panic(err)
			}
			s := int64(d / time.Second)
			spec.TerminationGracePeriodSeconds = &s
		case "pull":
			pull = corev1.PullPolicy(value)
		case "uid":
			uid = value
		case "network":
			spec.HostNetwork = value != "pod"
		case "hook":
			hook = true
		default:
			panic("unknown word " + w)
		}
	}
	always := corev1.ContainerRestartPolicyAlways
	for _, n := range fields(initial) {
		spec.InitContainers = append(spec.InitContainers, container(n))
	}
	for _, n := range fields(sidecars) {
		c := container(n)
		c.RestartPolicy = &always
		spec.InitContainers = append(spec.InitContainers, c)
	}
	for _, n := range fields(names) {
		c := container(n)
		if hook {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
		}
		spec.Containers = append(spec.Containers, c)
	}
	return &manifest.StaticPod{
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "etcd-node", Namespace: "kube-system"}, Spec: spec},
		UID: uid, SpecHash: "hash-" + strings.Join(words, "-"),
	}
}

func fields(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) }

func (m *model) id(kind string) string {
	m.ids++
	return kind + strconv.Itoa(m.ids)
}

func (m *model) sandbox(id string) *Sandbox {
	for i := range m.sandboxes {
		if m.sandboxes[i].ID == id {
			return &m.sandboxes[i]
		}
	}
	return nil
}

func (m *model) container(id string) *Container {
	for i := range m.containers {
		if m.containers[i].ID == id {
			return &m.containers[i]
		}
	}
	return nil
}

// newest returns the youngest container of that name, preferring one that runs; nil if there is none.
func (m *model) newest(name string) *Container {
	var found *Container
	for i := range m.containers {
		c := &m.containers[i]
		if c.Name == name && (found == nil || alive(c) || !alive(found)) {
			found = c
		}
	}
	return found
}

func (m *model) observed() Observed {
	return Observed{Sandboxes: slices.Clone(m.sandboxes), Containers: slices.Clone(m.containers), Images: m.images, Held: m.held, Left: m.left}
}

func (m *model) exit(c *Container, code int32) {
	c.State, c.ExitCode, c.FinishedAt, c.Probe = ContainerExited, code, m.now, Probe{}
}

// apply does one action. The error is a promise that was broken.
func (m *model) apply(a Action) error {
	if a.Why == "" {
		return fmt.Errorf("no reason given")
	}
	switch a.Kind {
	case EnsureImage:
		switch m.registry {
		case "":
			m.images[a.Image] = Image{Present: true, ID: "sha256:" + a.Image}
		case "slow":
			m.images[a.Image] = Image{Pulling: true}
		default:
			m.images[a.Image] = Image{Err: m.registry, FailedAt: m.now}
		}
	case RunSandbox:
		for _, sb := range m.sandboxes {
			if sb.Ready {
				return fmt.Errorf("sandbox %s is ready", sb.ID)
			}
			if sb.UID == a.UID && sb.Attempt == a.Attempt {
				return fmt.Errorf("the name is reserved for %s", sb.ID)
			}
		}
		for _, c := range m.containers {
			if alive(&c) {
				return fmt.Errorf("container %s runs", c.ID)
			}
		}
		m.dirs[a.UID] = true
		m.sandboxes = append(m.sandboxes, Sandbox{
			ID: m.id("s"), UID: a.UID, Attempt: a.Attempt, Ready: true, HostNetwork: m.want.Pod.Spec.HostNetwork, SpecHash: m.want.SpecHash, CreatedAt: m.now,
		})
	case StartContainer:
		sb := m.sandbox(a.SandboxID)
		if sb == nil || !sb.Ready || sb.UID != m.want.UID {
			return fmt.Errorf("sandbox %s cannot take it", a.SandboxID)
		}
		spec := specOf(m.want.Pod, a.Name)
		if !m.images[spec.Image].Present {
			return fmt.Errorf("image %s is not there", spec.Image)
		}
		for _, c := range m.containers {
			if c.Name == a.Name && alive(&c) {
				return fmt.Errorf("%s runs", c.ID)
			}
			if c.Name == a.Name && c.UID == a.UID && c.Attempt == a.Attempt {
				return fmt.Errorf("the name is reserved for %s", c.ID)
			}
		}
		c := Container{
			ID: m.id("c"), Name: a.Name, SandboxID: sb.ID, UID: a.UID, Attempt: a.Attempt, State: ContainerRunning, CreatedAt: m.now, StartedAt: m.now,
			Hash: ContainerHash(a.Name, spec.Image), TerminationGrace: podGrace(m.want.Pod),
		}
		if !m.probes {
			c.Probe = Probe{Started: true, Ready: true}
		}
		m.containers = append(m.containers, c)
	case StopContainer:
		c := m.container(a.ID)
		if c == nil || !alive(c) {
			return fmt.Errorf("%s does not run", a.ID)
		}
		if a.Grace < minGrace {
			return fmt.Errorf("grace %s", a.Grace)
		}
		if !m.stubborn[c.Name] {
			m.exit(c, 0)
		}
	case StopSandbox:
		if m.sandbox(a.ID) == nil {
			return fmt.Errorf("%s is not there", a.ID)
		}
		for _, c := range m.containers {
			if c.SandboxID == a.ID && c.State == ContainerRunning {
				return fmt.Errorf("%s still runs in it", c.ID)
			}
		}
		m.sandbox(a.ID).Ready = false
	case RemoveContainer:
		if c := m.container(a.ID); c == nil || alive(c) {
			return fmt.Errorf("%s is not there, or runs", a.ID)
		}
		m.containers = slices.DeleteFunc(m.containers, func(c Container) bool { return c.ID == a.ID })
	case RemoveSandbox:
		if sb := m.sandbox(a.ID); sb == nil || sb.Ready {
			return fmt.Errorf("%s is not there, or ready", a.ID)
		}
		if slices.ContainsFunc(m.containers, func(c Container) bool { return c.SandboxID == a.ID }) {
			return fmt.Errorf("%s has containers", a.ID)
		}
		m.sandboxes = slices.DeleteFunc(m.sandboxes, func(sb Sandbox) bool { return sb.ID == a.ID })
	case CleanUp:
		if slices.ContainsFunc(m.sandboxes, func(sb Sandbox) bool { return sb.UID == a.UID }) ||
			slices.ContainsFunc(m.containers, func(c Container) bool { return c.UID == a.UID }) {
			return fmt.Errorf("pod %s is not gone", a.UID)
		}
		delete(m.dirs, a.UID)
		m.left = slices.DeleteFunc(m.left, func(uid string) bool { return uid == a.UID })
	}
	return m.check()
}

// check looks for what must never be.
func (m *model) check() error {
	running := map[string]string{}
	for _, c := range m.containers {
		if !alive(&c) {
			continue
		}
		if other := running[c.Name]; other != "" && !strings.HasPrefix(c.ID, "x") && !strings.HasPrefix(other, "x") {
			return fmt.Errorf("%s and %s run at once", other, c.ID)
		}
		running[c.Name] = c.ID
	}
	return nil
}

// step is one round of the caller's loop. It tells whether to go round again at once.
func (m *model) step() (again bool, wake time.Time, err error) {
	d, mem := m.policy.Decide(m.now, m.want, m.observed(), m.mem)
	m.mem = mem
	m.states = append(m.states, d.State)
	m.print("%s: %s%s\n", d.State, d.Why, m.until(d.Wake))
	again = len(d.Actions) > 0
	failed, group := false, 0 // or not done yet; of a group all are begun
	for _, a := range d.Actions {
		if !slices.Contains(allowed[d.State], a.Kind) {
			return false, wake, fmt.Errorf("not an action of the state %s: %s", d.State, a)
		}
		if failed && a.Group != group {
			break
		}
		group = a.Group
		label := ""
		if group > 0 {
			label = fmt.Sprintf(" [%d]", group)
		}
		m.print("  %s%s\n", a, label)
		if m.broken[a.Kind] {
			m.print("  FAILED\n")
			if a.Kind == CleanUp && !slices.Contains(m.left, a.UID) {
				m.left = append(m.left, a.UID)
			}
			failed, again = true, false
			if group == 0 {
				break
			}
			continue
		}
		if err := m.apply(a); err != nil {
			return false, wake, fmt.Errorf("%s: %w", a, err)
		}
		if a.Kind == StopContainer && m.container(a.ID) != nil && alive(m.container(a.ID)) {
			failed, again = true, false // it takes its time
			if group == 0 {
				break
			}
		}
	}
	return again && !failed, d.Wake, nil
}

func (m *model) until(wake time.Time) string {
	if wake.IsZero() {
		return ""
	}
	return fmt.Sprintf(" (look again in %s)", wake.Sub(m.now))
}

// settle goes round until nothing is left to do.
func (m *model) settle() (wake time.Time, err error) {
	for range 40 {
		again, wake, err := m.step()
		if err != nil || !again {
			return wake, err
		}
	}
	return wake, fmt.Errorf("does not come to rest")
}

// tick lets time pass, with a look at every moment that was asked for.
func (m *model) tick(d time.Duration) error {
	end := m.now.Add(d)
	for range 1000 {
		wake, err := m.settle()
		if err != nil {
			return err
		}
		if wake.IsZero() || wake.After(end) || !wake.After(m.now) {
			break
		}
		m.print("+%s\n", wake.Sub(m.now))
		m.now = wake
	}
	if m.now.Before(end) {
		m.now = end
		_, err := m.settle()
		return err
	}
	return nil
}

// do performs one command of a trace, up to the look that follows it.
func (m *model) do(line string) error {
	words := strings.Fields(line)
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	target := func() (*Container, error) {
		if c := m.newest(arg(2)); c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("no container %q", arg(2))
	}
	switch arg(0) {
	case "manifest":
		m.want = pod(words[1:]...)
	case "remove":
		m.want = nil
	case "hold":
		m.held = arg(1)
	case "release":
		m.held = ""
	case "restart": // the supervisor
		m.reborn()
	case "registry":
		m.registry = strings.Join(words[1:], " ")
	case "pulled":
		for ref, im := range m.images {
			if im.Pulling {
				m.images[ref] = Image{Present: true}
			}
		}
	case "forget": // what is known of images
		clear(m.images)
	case "stubborn":
		m.stubborn[arg(1)] = true
	case "probes":
		m.probes = true
	case "cap":
		d, err := time.ParseDuration(arg(1))
		m.policy.MaxRestartPeriod = d
		return err
	case "clock":
		d, err := time.ParseDuration(arg(1))
		m.now = m.now.Add(d)
		return err
	case "break", "mend":
		for k := range ActionKind(len(actionKinds)) {
			if k.String() == strings.Join(words[1:], " ") {
				m.broken[k] = arg(0) == "break"
			}
		}
	case "probe":
		c, err := (func() (*Container, error) {
			if c := m.newest(arg(1)); c != nil {
				return c, nil
			}
			return nil, fmt.Errorf("no container %q", arg(1))
		})()
		if err != nil {
			return err
		}
		message := strings.Join(words[min(3, len(words)):], " ")
		switch arg(2) {
		case "started":
			c.Probe.Started = true
		case "ready":
			c.Probe = Probe{Started: true, Ready: true}
		case "unready":
			c.Probe.Ready, c.Probe.Message = false, message
		case "liveness":
			c.Probe.LivenessFailed = message
		case "startup":
			c.Probe.StartupFailed = message
		}
	case "cri":
		return m.cri(arg(1), words, target)
	case "look":
	default:
		return fmt.Errorf("no command %q", arg(0))
	}
	return nil
}

// reborn is the start of a supervisor: it remembers nothing, and clears the pod directories that nothing in the runtime
// belongs to.
func (m *model) reborn() {
	m.mem = Memory{}
	m.states = append(m.states, unborn)
	for uid := range m.dirs {
		if !slices.ContainsFunc(m.sandboxes, func(sb Sandbox) bool { return sb.UID == uid }) &&
			!slices.ContainsFunc(m.containers, func(c Container) bool { return c.UID == uid }) {
			delete(m.dirs, uid)
		}
	}
	m.left = nil
}

// cri is what happens in the runtime by itself, or by somebody else's hand.
func (m *model) cri(what string, words []string, target func() (*Container, error)) error {
	switch what {
	case "exit":
		c, err := target()
		if err != nil {
			return err
		}
		code, err := strconv.Atoi(words[3])
		m.exit(c, int32(code))
		if len(words) > 4 {
			c.Reason = words[4]
		}
		return err
	case "unknown":
		c, err := target()
		if err == nil {
			c.State = ContainerUnknown
		}
		return err
	case "rm":
		c, err := target()
		if err == nil {
			m.containers = slices.DeleteFunc(m.containers, func(o Container) bool { return o.ID == c.ID })
		}
		return err
	case "pause": // the pause process dies; host network containers live on
		for i := range m.sandboxes {
			m.sandboxes[i].Ready = false
		}
	case "reboot":
		for i := range m.sandboxes {
			m.sandboxes[i].Ready = false
		}
		for i := range m.containers {
			if alive(&m.containers[i]) {
				m.exit(&m.containers[i], 255)
			}
		}
		m.reborn()
	case "wipe":
		m.sandboxes, m.containers = nil, nil
	case "kubelet": // a kubelet made the pod: its sandbox carries no hash of the spec
		for i := range m.sandboxes {
			m.sandboxes[i].SpecHash = ""
		}
	case "rehash":
		c, err := target()
		if err == nil {
			c.Hash = "0"
		}
		return err
	case "second": // another ready sandbox of the same pod, made by another hand
		if len(m.sandboxes) == 0 {
			return fmt.Errorf("no sandbox")
		}
		first := m.sandboxes[len(m.sandboxes)-1]
		first.ID, first.Attempt, first.Ready = m.id("s"), first.Attempt+1, true
		m.sandboxes = append(m.sandboxes, first)
	case "create": // a container that was created and never started
		if len(m.sandboxes) == 0 {
			return fmt.Errorf("no sandbox")
		}
		sb := m.sandboxes[len(m.sandboxes)-1]
		m.containers = append(m.containers, Container{ID: m.id("c"), Name: words[2], SandboxID: sb.ID, UID: sb.UID, Attempt: 7, CreatedAt: m.now})
	default:
		return fmt.Errorf("no event %q", what)
	}
	return nil
}

// allowed says what may be done in which state.
var allowed = func() map[State][]ActionKind {
	clearing := []ActionKind{StopSandbox, RemoveContainer, RemoveSandbox, CleanUp}
	with := func(kinds ...ActionKind) []ActionKind { return append(kinds, clearing...) }
	return map[State][]ActionKind{
		Absent:      nil,
		Held:        with(EnsureImage),
		Pulling:     with(EnsureImage),
		Starting:    with(EnsureImage, RunSandbox, StartContainer, StopContainer),
		Running:     with(),
		BackOff:     with(),
		Completed:   with(StopContainer),
		Terminating: with(StopContainer, EnsureImage),
	}
}()
