package lifecycle

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// model is a runtime in memory and the caller that the package comment describes. It enforces the runtime's protocol:
// an action that the real one would refuse, or that would break a promise of Decide, is an error.
type model struct {
	policy     Policy
	now        time.Time
	want       *manifest.StaticPod
	mem        Memory
	before     Memory // what the decision that is being carried out was made from
	held       string
	sandboxes  []Sandbox
	containers []Container
	images     map[string]Image
	dirs       map[string]bool
	left       []string
	logs       map[string]uint32 // highest attempt by uid/name: its log outlives the container

	asked    map[string]string // Observed.Restart
	watched  string            // Observed.Watched, and what a container that starts remembers of it
	registry string            // how it answers: "" at once, "slow", or an error
	stubborn map[string]bool   // containers that a stop does not end at once
	stopCode int32             // the exit code of what is stopped
	probes   bool              // a container that starts is neither started nor ready yet
	hooks    bool              // post-start hooks take their time
	broken   map[ActionKind]bool
	ids      int
	states   []State
	version  string        // of the pod that active speaks of
	active   time.Duration // since its first sandbox, as far as clocks go forward
	activeAt time.Time
	print    func(format string, args ...any)
}

func newModel() *model {
	return &model{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), images: map[string]Image{}, dirs: map[string]bool{}, logs: map[string]uint32{},
		stubborn: map[string]bool{}, broken: map[ActionKind]bool{}, asked: map[string]string{}, print: func(string, ...any) {},
	}
}

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
	return Observed{
		LastAttempt: m.lastAttempts(),
		Sandboxes:   slices.Clone(m.sandboxes), Containers: slices.Clone(m.containers), Images: m.images, Held: m.held, Left: m.left,
		Restart: m.asked, Watched: m.watched,
	}
}

func (m *model) forgetLogs(uid string) {
	maps.DeleteFunc(m.logs, func(key string, _ uint32) bool { return strings.HasPrefix(key, uid+"/") })
}

// lastAttempts tells of the wanted pod's containers that are gone.
func (m *model) lastAttempts() map[string]uint32 {
	last := map[string]uint32{}
	for key, n := range m.logs {
		uid, name, _ := strings.Cut(key, "/")
		if m.want != nil && uid == m.want.UID && !slices.ContainsFunc(m.containers, func(c Container) bool { return c.UID == uid && c.Name == name }) {
			last[name] = n
		}
	}
	return last
}

// clock is the time as the runtime tells it: without a monotonic reading.
func (m *model) clock() time.Time { return m.now.Round(0) }

func (m *model) exit(c *Container, code int32) {
	c.State, c.ExitCode, c.FinishedAt, c.Probe, c.Hook = ContainerExited, code, m.clock(), Probe{}, Hook{}
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
			ID: m.id("s"), UID: a.UID, Attempt: a.Attempt, Ready: true, HostNetwork: m.want.Pod.Spec.HostNetwork, SpecHash: m.want.SpecHash, CreatedAt: m.clock(),
		})
	case StartContainer:
		sb := m.sandbox(a.SandboxID)
		if sb == nil || !sb.Ready || sb.UID != m.want.UID {
			return fmt.Errorf("sandbox %s cannot take it", a.SandboxID)
		}
		spec := specOf(m.want.Pod, a.Name)
		for _, ref := range m.mounts(spec) {
			if !m.images[ref].Present {
				return fmt.Errorf("image %s is not there", ref)
			}
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
			ID: m.id("c"), Name: a.Name, SandboxID: sb.ID, UID: a.UID, Attempt: a.Attempt, State: ContainerRunning, CreatedAt: m.clock(), StartedAt: m.clock(),
			Hash: ContainerHash(a.Name, spec.Image), TerminationGrace: podGrace(m.want.Pod), Watched: m.watched,
		}
		if m.hooks && spec.Lifecycle != nil {
			c.Hook.State = HookRunning
		}
		if !m.probes {
			c.Probe = Probe{Started: true, Ready: true}
		}
		m.containers = append(m.containers, c)
		m.logs[a.UID+"/"+a.Name] = a.Attempt
	case StopContainer:
		c := m.container(a.ID)
		if c == nil || !alive(c) {
			return fmt.Errorf("%s does not run", a.ID)
		}
		if a.Grace < minGrace {
			return fmt.Errorf("grace %s", a.Grace)
		}
		if !m.mayStop(c) {
			return fmt.Errorf("nothing speaks against it")
		}
		if !m.stubborn[c.Name] {
			m.exit(c, m.stopCode)
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
		m.forgetLogs(a.UID)
		m.left = slices.DeleteFunc(m.left, func(uid string) bool { return uid == a.UID })
	}
	return m.check()
}

// mounts returns the images that a container needs.
func (m *model) mounts(spec *corev1.Container) []string {
	refs := []string{spec.Image}
	for _, mount := range spec.VolumeMounts {
		for _, v := range m.want.Pod.Spec.Volumes {
			if v.Name == mount.Name && v.Image != nil {
				refs = append(refs, v.Image.Reference)
			}
		}
	}
	return refs
}

// mayStop tells whether anything speaks against a running container's running on.
func (m *model) mayStop(c *Container) bool {
	sb := m.sandbox(c.SandboxID)
	if m.want == nil || sb == nil || !sb.Ready || sb.UID != m.want.UID || sb.SpecHash != m.want.SpecHash && sb.SpecHash != "" {
		return true
	}
	if _, doomed := m.before.Doomed[sb.ID]; doomed || sb.HostNetwork != m.want.Pod.Spec.HostNetwork {
		return true
	}
	for i := range m.sandboxes {
		if other := &m.sandboxes[i]; other.ID != sb.ID && other.Ready && other.UID == sb.UID && other.Attempt >= sb.Attempt {
			return true
		}
	}
	spec := specOf(m.want.Pod, c.Name)
	if spec == nil || c.State == ContainerUnknown || m.before.Killed[c.ID] != "" || m.newest(c.Name).ID != c.ID {
		return true
	}
	if c.Hash != "" && c.Hash != ContainerHash(c.Name, spec.Image) || c.Hook.State == HookFailed {
		return true
	}
	if m.asked[c.ID] != "" || c.Watched != "" && m.watched != "" && c.Watched != m.watched {
		return true
	}
	if c.Hook.State == HookDone && c.Probe.StartupFailed+c.Probe.LivenessFailed != "" {
		return true
	}
	return m.overdue() || m.over(isSidecar(spec))
}

// overdue tells whether the pod's deadline is over.
func (m *model) overdue() bool {
	limit := m.want.Pod.Spec.ActiveDeadlineSeconds
	return limit != nil && m.active >= time.Duration(*limit)*time.Second
}

// over tells whether the pod's main containers have ended, or one whose rule stops all the others.
func (m *model) over(sidecar bool) bool {
	mains := false
	for i := range m.containers {
		c := &m.containers[i]
		spec := specOf(m.want.Pod, c.Name)
		if sb := m.sandbox(c.SandboxID); spec == nil || sb == nil || !sb.Ready {
			continue
		}
		if c.State == ContainerExited && ruled(spec, c.ExitCode) == corev1.ContainerRestartRuleActionRestartAllContainers {
			return true
		}
		mains = mains || !isSidecar(spec) && alive(c)
	}
	return sidecar && !mains
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

// grow measures how long the wanted version has been active.
func (m *model) grow() {
	if v := version(m.want); v != m.version {
		m.version, m.active, m.activeAt = v, 0, time.Time{}
	}
	if !m.activeAt.IsZero() {
		m.active += max(0, m.now.Sub(m.activeAt))
		m.activeAt = m.now
		return
	}
	for _, sb := range m.sandboxes {
		if _, doomed := m.mem.Doomed[sb.ID]; m.want == nil || doomed || sb.UID != m.want.UID || sb.SpecHash != m.want.SpecHash && sb.SpecHash != "" {
			continue
		}
		m.active, m.activeAt = max(m.active, m.now.Sub(sb.CreatedAt)), m.now
	}
}

// step is one round of the caller's loop. It tells whether to go round again at once.
func (m *model) step() (again bool, wake time.Time, err error) {
	m.grow()
	d, mem := m.policy.Decide(m.now, m.want, m.observed(), m.mem)
	m.before, m.mem = m.mem, mem
	m.states = append(m.states, d.State)
	reason := ""
	if d.Reason != "" {
		reason = " [" + d.Reason + "]"
	}
	m.print("%s: %s%s%s\n", d.State, d.Why, reason, m.until(d.Wake))
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
