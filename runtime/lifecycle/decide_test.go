package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// TestEveryCombination drives Decide from every combination of what can be wanted and seen. The model refuses what
// the runtime would refuse, two running copies, a sandbox made while something old runs, a stop without a reason, and
// an action that is none of its state's; and it must come to rest where the manifest says.
func TestEveryCombination(t *testing.T) {
	wants := map[string]func(old []string) []string{
		"nothing":  nil,
		"same":     func(old []string) []string { return old },
		"changed":  func(old []string) []string { return append([]string{"v2"}, old[2:]...) },
		"same uid": func(old []string) []string { return append([]string{"v2"}, old[1:]...) },
	}
	sandboxes := []string{"none", "ready", "not ready", "old ready", "old not ready", "two ready", "old and ready", "gone"}
	containers := []string{
		"none", "created", "running", "exited 0", "exited 1", "unknown", "liveness", "startup", "other image", "stranger",
		"hook running", "hook failed", "asked", "watched", "just watched",
	}
	images := []string{"unknown", "present", "pulling", "failed"}
	n := 0
	for want, words := range wants {
		for _, policy := range []string{"policy=Always", "policy=OnFailure", "policy=Never"} {
			for _, deadline := range []string{"", "deadline=30m"} { // the sandboxes are an hour old
				old := strings.Fields("v1 uid=u " + policy + " hook volume=data:v1:IfNotPresent " + deadline)
				for _, sb := range sandboxes {
					for _, c := range containers {
						for _, im := range images {
							for _, held := range []string{"", "base"} {
								for _, remembered := range []bool{false, true} {
									n++
									m := newModel()
									if words != nil {
										m.want = pod(words(old)...)
									}
									m.held = held
									m.place(sb, c, pod(old...))
									m.know(im)
									if remembered {
										m.mem.Last = pod(old...)
									}
									name := fmt.Sprintf("want %s, %s %s, sandbox %s, container %s, image %s, held %q, remembered %t", want, policy, deadline, sb, c, im, held, remembered)
									if held == "" && remembered {
										if err := m.setClock(); err != nil {
											t.Fatalf("%s: %v", name, err)
										}
									}
									if err := m.rest(); err != nil {
										t.Fatalf("%s: %v", name, err)
									}
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d combinations", n)
}

// know says what is known of the images.
func (m *model) know(state string) {
	for _, ref := range []string{"etcd:v1", "etcd:v2", "data:v1"} {
		switch state {
		case "present":
			m.images[ref] = Image{Present: true}
		case "pulling":
			m.images[ref] = Image{Pulling: true}
		case "failed":
			m.images[ref] = Image{Err: "not found", FailedAt: m.now}
		}
	}
}

// place puts sandboxes and a container of the old pod into the runtime.
func (m *model) place(sandbox, container string, old *manifest.StaticPod) {
	made := m.now.Add(-time.Hour)
	add := func(id, uid string, attempt uint32, ready bool) {
		m.dirs[uid] = true
		m.sandboxes = append(m.sandboxes, Sandbox{ID: id, UID: uid, Attempt: attempt, Ready: ready, HostNetwork: true, SpecHash: old.SpecHash, CreatedAt: made})
	}
	var homes []string
	switch sandbox {
	case "ready", "not ready":
		add("x1", "u", 0, sandbox == "ready")
		homes = []string{"x1"}
	case "old ready", "old not ready":
		add("x1", "old", 0, sandbox == "old ready")
		homes = []string{"x1"}
	case "two ready":
		add("x1", "u", 0, true)
		add("x2", "u", 1, true)
		homes = []string{"x1", "x2"}
	case "old and ready":
		add("x1", "old", 3, true)
		add("x2", "u", 0, true)
		homes = []string{"x1", "x2"}
	case "gone":
		homes = []string{"x9"}
	}
	for i, home := range homes {
		c := Container{
			ID: "xc" + home, Name: "etcd", SandboxID: home, UID: "u", Attempt: uint32(i), CreatedAt: made, StartedAt: made,
			Hash: ContainerHash("etcd", "etcd:v1"), Probe: Probe{Started: true, Ready: true},
		}
		if sb := m.sandbox(home); sb != nil {
			c.UID = sb.UID
		}
		if container == "none" {
			continue
		}
		m.dirs[c.UID] = true
		switch container {
		case "created":
			c.State, c.StartedAt = ContainerCreated, time.Time{}
		case "running":
			c.State = ContainerRunning
		case "exited 0", "exited 1":
			c.State, c.FinishedAt, c.ExitCode = ContainerExited, m.now, int32(container[7]-'0')
		case "unknown":
			c.State = ContainerUnknown
		case "liveness":
			c.State, c.Probe.LivenessFailed = ContainerRunning, "timed out"
		case "startup":
			c.State, c.Probe = ContainerRunning, Probe{StartupFailed: "timed out"}
		case "hook running":
			c.State, c.Hook.State, c.Probe = ContainerRunning, HookRunning, Probe{LivenessFailed: "too early"}
		case "hook failed":
			c.State, c.Hook = ContainerRunning, Hook{State: HookFailed, Message: "exit code 1"}
		case "asked":
			c.State = ContainerRunning
			m.asked[c.ID] = "restarted by hand"
		case "watched", "just watched":
			c.State, c.Watched, m.watched = ContainerRunning, "a", "b"
			if container != "watched" {
				c.StartedAt = m.now
			}
		case "other image":
			c.State, c.Hash = ContainerRunning, "0"
		case "stranger":
			c.State, c.Name = ContainerRunning, "stranger"
		}
		m.containers = append(m.containers, c)
	}
}
