package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// rest lets the model come to rest three times: as it is, with the other pod ready, and once every wait is over. The
// result must be what is wanted.
func (m *model) rest() error {
	if err := m.tick(0); err != nil {
		return err
	}
	m.held = ""
	if err := m.tick(time.Second); err != nil {
		return err
	}
	if err := m.do("pulled"); err != nil {
		return err
	}
	m.registry = ""
	if err := m.tick(20 * time.Minute); err != nil {
		return err
	}
	return m.asWanted()
}

// asWanted compares what there is with the manifest.
func (m *model) asWanted() error {
	if m.want == nil {
		if len(m.sandboxes)+len(m.containers)+len(m.dirs) > 0 {
			return fmt.Errorf("left: %v %v %v", m.sandboxes, m.containers, m.dirs)
		}
		return nil
	}
	if len(m.dirs) > 1 {
		return fmt.Errorf("directories left: %v", m.dirs)
	}
	var ready []string
	for _, sb := range m.sandboxes {
		if sb.UID != m.want.UID {
			return fmt.Errorf("an old sandbox is left: %v", sb)
		}
		if sb.Ready {
			ready = append(ready, sb.ID)
		}
	}
	running, dead := map[string]int{}, map[string]*Container{}
	for i := range m.containers {
		c := &m.containers[i]
		switch {
		case alive(c) && len(ready) == 1 && c.SandboxID == ready[0]:
			running[c.Name]++
			if err := m.fresh(c); err != nil {
				return err
			}
		case alive(c):
			return fmt.Errorf("%s runs in %s", c.Name, c.SandboxID)
		case dead[c.Name] != nil:
			return fmt.Errorf("two dead copies of %s", c.Name)
		default:
			dead[c.Name] = c
		}
	}
	last := m.states[len(m.states)-1]
	if m.overdue() || last == Completed && m.mayEnd(dead) {
		if last != Completed || len(ready) > 0 || len(running) > 0 {
			return fmt.Errorf("%s, yet the pod has ended: %v %v", last, ready, running)
		}
		return nil
	}
	if last != Running || len(ready) != 1 {
		return fmt.Errorf("%s, sandboxes %v", last, ready)
	}
	for i := range m.want.Pod.Spec.Containers {
		spec := &m.want.Pod.Spec.Containers[i]
		c := dead[spec.Name]
		if running[spec.Name] != 1 && (c == nil || m.mem.Killed[c.ID] != "" || Restarts(m.want.Pod, spec, c)) {
			return fmt.Errorf("%d running copies of %s", running[spec.Name], spec.Name)
		}
	}
	for i := range m.want.Pod.Spec.InitContainers {
		if spec := &m.want.Pod.Spec.InitContainers[i]; isSidecar(spec) && running[spec.Name] != 1 {
			return fmt.Errorf("%d running copies of the sidecar %s", running[spec.Name], spec.Name)
		}
	}
	return nil
}

// fresh tells whether a running container is what it would be if it were started now.
func (m *model) fresh(c *Container) error {
	switch spec := specOf(m.want.Pod, c.Name); {
	case spec == nil:
		return fmt.Errorf("%s is not in the manifest", c.Name)
	case isInit(m.want.Pod, spec):
		return nil
	case m.asked[c.ID] != "":
		return fmt.Errorf("%s was not restarted when asked for", c.Name)
	case c.Watched != "" && m.watched != "" && c.Watched != m.watched:
		return fmt.Errorf("%s has not seen the watched files", c.Name)
	case c.Hook.State == HookFailed:
		return fmt.Errorf("%s runs although its hook has failed", c.Name)
	}
	return nil
}

// mayEnd tells whether what is dead may stay dead: all main containers, or an init container that has failed.
func (m *model) mayEnd(dead map[string]*Container) bool {
	stays := func(spec *corev1.Container) bool {
		c := dead[spec.Name]
		return c != nil && m.mem.Killed[c.ID] == "" && !Restarts(m.want.Pod, spec, c)
	}
	for i := range m.want.Pod.Spec.InitContainers {
		if spec := &m.want.Pod.Spec.InitContainers[i]; stays(spec) && failed(dead[spec.Name]) {
			return true
		}
	}
	for i := range m.want.Pod.Spec.Containers {
		if !stays(&m.want.Pod.Spec.Containers[i]) {
			return false
		}
	}
	return true
}

// calm ends all interference, and tells whether the pod ends as wanted.
func (m *model) calm() error {
	clear(m.stubborn)
	clear(m.broken)
	m.probes, m.hooks = false, false
	for i := range m.containers {
		if c := &m.containers[i]; alive(c) {
			c.Probe = Probe{Started: true, Ready: true}
			if c.Hook.State == HookRunning {
				c.Hook = Hook{}
			}
		}
	}
	return m.finish()
}

// finish ends every init container well until the pod is as wanted.
func (m *model) finish() error {
	for range 6 {
		if err := m.rest(); err == nil {
			return nil
		}
		for i := range m.containers {
			c := &m.containers[i]
			if m.want != nil && c.State == ContainerRunning && slices.ContainsFunc(m.want.Pod.Spec.InitContainers, func(s corev1.Container) bool {
				return s.Name == c.Name && !isSidecar(&s)
			}) {
				m.exit(c, 0)
			}
		}
	}
	return m.rest()
}
