package lifecycle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
	case "hooks":
		m.hooks = true
	case "hook":
		c := m.newest(arg(1))
		if c == nil || c.State != ContainerRunning {
			return fmt.Errorf("no container %q", arg(1))
		}
		state := slices.Index([]string{"done", "running", "failed"}, arg(2))
		c.Hook = Hook{State: HookState(state), Message: strings.Join(words[min(3, len(words)):], " ")}
	case "ask":
		c := m.newest(arg(1))
		if c == nil {
			return fmt.Errorf("no container %q", arg(1))
		}
		m.asked[c.ID] = strings.Join(words[2:], " ")
	case "unask":
		clear(m.asked)
	case "watch":
		m.watched = arg(1)
	case "code":
		n, err := strconv.Atoi(arg(1))
		m.stopCode = int32(n)
		return err
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
			m.forgetLogs(uid)
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
		if !alive(c) {
			return fmt.Errorf("no container %q runs", c.Name)
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
		m.containers = append(m.containers, Container{ID: m.id("c"), Name: words[2], SandboxID: sb.ID, UID: sb.UID, Attempt: 7, CreatedAt: m.clock()})
	default:
		return fmt.Errorf("no event %q", what)
	}
	return nil
}
