//go:build e2e

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	hostAddress = "10.231.7.2"

	// returnLimit is how long the control plane may take from the end of the boot until it is ready again. It takes
	// 10 s on two idle cores.
	returnLimit = 90 * time.Second
)

var slipwayUnits = []string{"slipway-containerd.service", "slipway.service"}

// TestSystemdHost is the life of a node whose init is systemd: slipway's two programs are units there, their restarts
// are not the pods' restarts, and the control plane survives a reboot.
func TestSystemdHost(t *testing.T) {
	h := newDebianHost(t, "quay", hostAddress)
	before := h.take(t)
	r := h.run(t, "slipway", "init", "--apiserver-advertise-address", hostAddress, "--image-archives", "/opt/images").must(t, "slipway init")
	t.Logf("init took %v\n%s%s", r.took.Round(time.Millisecond), r.stderr, r.stdout)

	steps := []struct {
		name string
		test func(*testing.T, *debianHost)
	}{
		{"units", unitsAreEnabledAndActive},
		{"again", initAgainLeavesTheUnitsAlone},
		{"restart", restartedUnitsKeepThePods},
		{"kill", killedUnitsComeBackToTheirPods},
		{"supervise", func(t *testing.T, h *debianHost) {
			exitedContainerIsRestartedThere(t, h, "/run/slipway/containerd.sock")
		}},
		{"stop", stoppedSupervisorLeavesThePods},
		{"reboot", controlPlaneComesBackWithItsData},
		{"again after the reboot", initAgainLeavesTheUnitsAlone},
	}
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) { step.test(t, h) }) {
			break // what follows needs a node that works
		}
	}
	t.Run("reset", func(t *testing.T) { resetLeavesNothing(t, h, before) })
}

// TestSystemdHostWithItsOwnContainerd uses the containerd that the distribution runs there: slipway starts none, and a
// reset takes its pods out and leaves the rest.
func TestSystemdHostWithItsOwnContainerd(t *testing.T) {
	h := newDebianHost(t, "quay", hostAddress)
	h.run(t, "sh", "-c", `mkdir -p /etc/containerd && cat >/etc/containerd/config.toml <<EOF
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.10.2"
restrict_oom_score_adj = true
EOF
systemctl unmask containerd && systemctl enable --now containerd`).must(t, "starting the distribution's containerd")
	store := []string{"/var/lib/containerd", "/run/containerd"} // the images stay in it, as what its owner may use
	before := h.take(t, store...)
	h.run(t, "slipway", "init", "--apiserver-advertise-address", hostAddress, "--image-archives", "/opt/images",
		"--cri-socket", "unix:///run/containerd/containerd.sock").must(t, "slipway init")
	if got := h.show(t, "slipway-containerd.service", "LoadState"); got != "not-found" {
		t.Errorf("slipway-containerd.service: %s", got)
	}
	if got := h.show(t, "slipway.service", "UnitFileState", "ActiveState"); got != "enabled active" {
		t.Errorf("slipway.service: %s", got)
	}
	eventually(t, time.Minute, "health", h.healthy(t))
	containers := h.ps(t)
	h.run(t, "systemctl", "restart", "containerd").must(t, "restarting the distribution's containerd")
	pid := h.show(t, "containerd.service", "MainPID")
	h.unchanged(t, containers)
	exitedContainerIsRestartedThere(t, h, "/run/containerd/containerd.sock")
	resetLeavesNothing(t, h, before, store...)
	if now := h.show(t, "containerd.service", "MainPID", "ActiveState"); now != pid+" active" {
		t.Errorf("the distribution's containerd was %s active, is %s", pid, now)
	}
	if r := h.run(t, "ctr", "-n", "k8s.io", "containers", "list", "-q"); r.stdout != "" {
		t.Errorf("containers left in the distribution's containerd:\n%s", r.stdout)
	}
}

func unitsAreEnabledAndActive(t *testing.T, h *debianHost) {
	for _, unit := range slipwayUnits {
		if got := h.show(t, unit, "UnitFileState", "ActiveState", "SubState", "Type"); got != "enabled active running notify" {
			t.Errorf("%s: %s", unit, got)
		}
	}
	if got := h.kubectl(t, "get", "--raw", "/readyz").must(t, "kubectl get --raw /readyz").stdout; got != "ok" {
		t.Errorf("readyz: %q", got)
	}
}

func initAgainLeavesTheUnitsAlone(t *testing.T, h *debianHost) {
	before, pids := h.ps(t), h.pids(t)
	r := h.run(t, "slipway", "init", "--apiserver-advertise-address", hostAddress, "--image-archives", "/opt/images", "-o", "json").must(t, "a second init")
	if strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("a second init changed %s", r.stdout)
	}
	if now := h.pids(t); now != pids {
		t.Errorf("the units' main processes were %s, are %s", pids, now)
	}
	h.unchanged(t, before)
}

func restartedUnitsKeepThePods(t *testing.T, h *debianHost) {
	for _, unit := range slipwayUnits {
		before, pids := h.ps(t), h.pids(t)
		h.run(t, "systemctl", "restart", unit).must(t, "restarting "+unit)
		if h.pids(t) == pids {
			t.Errorf("%s still has its former process", unit)
		}
		eventually(t, 30*time.Second, "health after the restart of "+unit, h.healthy(t))
		h.unchanged(t, before)
	}
}

func killedUnitsComeBackToTheirPods(t *testing.T, h *debianHost) {
	for _, unit := range slipwayUnits {
		before, pid := h.ps(t), h.show(t, unit, "MainPID")
		h.run(t, "kill", "-KILL", pid).must(t, "killing "+unit)
		eventually(t, 30*time.Second, "systemd's restart of "+unit, func() string {
			if now := h.show(t, unit, "MainPID", "ActiveState"); !strings.HasSuffix(now, " active") || strings.HasPrefix(now, pid+" ") {
				return now
			}
			return ""
		})
		eventually(t, 30*time.Second, "health after the death of "+unit, h.healthy(t))
		h.unchanged(t, before)
	}
}

// exitedContainerIsRestartedThere shows that the supervisor still sees what happens in the runtime: until then it may
// merely remember that all was well.
func exitedContainerIsRestartedThere(t *testing.T, h *debianHost, socket string) {
	before := h.ps(t)["kube-scheduler"]
	id := strings.TrimPrefix(before.ID, "containerd://")
	h.run(t, "ctr", "-a", socket, "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id).must(t, "killing the scheduler")
	eventually(t, 30*time.Second, "the scheduler's next attempt", func() string {
		if c := h.ps(t)["kube-scheduler"]; c.Attempt != before.Attempt+1 || c.State != "Running" {
			return c.State
		}
		return ""
	})
	eventually(t, 30*time.Second, "health after the restart", h.healthy(t))
}

func stoppedSupervisorLeavesThePods(t *testing.T, h *debianHost) {
	before := h.ps(t)
	h.run(t, "systemctl", "stop", slipwayUnits[1], slipwayUnits[0]).must(t, "stopping both units")
	if got := h.kubectl(t, "get", "--raw", "/readyz").must(t, "the API without a supervisor").stdout; got != "ok" {
		t.Errorf("readyz: %q", got)
	}
	for _, name := range controlPlane {
		h.run(t, "pgrep", "-xf", name+" .*").must(t, "looking for the process of "+name)
	}
	h.run(t, "systemctl", "start", "slipway.service").must(t, "starting slipway.service, which wants containerd's")
	eventually(t, 30*time.Second, "adoption", h.healthy(t))
	h.unchanged(t, before)
}

func controlPlaneComesBackWithItsData(t *testing.T, h *debianHost) {
	h.kubectl(t, "create", "configmap", "tide", "--from-literal=level=high").must(t, "creating a ConfigMap")
	before := h.ps(t)
	h.reboot(t)
	booted := time.Now()
	eventually(t, returnLimit, "the control plane's return", func() string {
		if r := h.kubectl(t, "get", "--raw", "/readyz"); r.stdout != "ok" {
			return r.stdout + r.stderr + h.run(t, "slipway", "status").stdout
		}
		return ""
	})
	eventually(t, time.Until(booted.Add(returnLimit)), "every component's return", h.healthy(t))
	t.Logf("ready %v after the boot", time.Since(booted).Round(time.Millisecond))
	if got := h.kubectl(t, "get", "configmap", "tide", "-o", "jsonpath={.data.level}").must(t, "reading the ConfigMap").stdout; got != "high" {
		t.Errorf("the ConfigMap reads back %q", got)
	}
	for name, now := range h.ps(t) {
		// One attempt more than before: nothing crashed on the way up, and the count goes on.
		if want := before[name].Attempt + 1; now.Attempt != want {
			t.Errorf("%s: attempt %d, want %d", name, now.Attempt, want)
		}
	}
	unitsAreEnabledAndActive(t, h)
}

func resetLeavesNothing(t *testing.T, h *debianHost, before hostState, except ...string) {
	planned := h.run(t, "slipway", "reset", "--dry-run").must(t, "slipway reset --dry-run")
	done := h.run(t, "slipway", "reset", "--force").must(t, "slipway reset")
	t.Logf("reset took %v\n%s%s", done.took.Round(time.Millisecond), done.stderr, done.stdout)
	if planned.stdout != done.stdout {
		t.Errorf("reset --dry-run printed\n%s\nreset did\n%s", planned.stdout, done.stdout)
	}
	after := h.take(t, except...)
	left, gone := after.without(before), before.without(after)
	gone = slices.DeleteFunc(gone, func(line string) bool { return strings.HasPrefix(line, "cgroup ") }) // empty ones of another program
	if len(left)+len(gone) > 0 {
		t.Errorf("the host is not as it was. Left:\n%s\nGone:\n%s", strings.Join(left, "\n"), strings.Join(gone, "\n"))
	}
	h.run(t, "slipway", "reset", "--force").must(t, "a second reset")
}

// hostState is what init may change of a host and reset must put back, one line each.
type hostState []string

// take looks at the host. What systemd, nspawn and logins keep is left out, and what is below the given directories.
func (h *debianHost) take(t *testing.T, except ...string) hostState {
	t.Helper()
	except = append([]string{"/run/systemd", "/run/log", "/run/credentials", "/run/host", "/var/lib/systemd", "/opt/images"}, except...)
	tree := `find /etc /opt /root /run /usr/local /var/lib /var/log \( -path ` + strings.Join(except, " -o -path ") + ` \) -prune -o ` +
		`! -name wtmp ! -name utmp ! -name agetty.reload`
	var out hostState
	for _, script := range []string{
		tree + ` -printf 'file %p %M %l\n'`,
		tree + ` -type f -size -64k -exec sha256sum {} +`,
		`findmnt -ln -o TARGET | grep -v ^/run/credentials | sed 's/^/mount /'`,
		`ps -eo args | grep -E 'slipway|containerd|etcd|kube-|pause|runc' | grep -v grep | sed 's/^/process /'`,
		`find /sys/fs/cgroup -type d \( -name 'kubepods*' -o -name 'slipway*' \) | sed 's/^/cgroup /'`,
		`systemctl list-units --all --plain --no-legend 'slipway*' | sed 's/^/unit /'`,
		`systemctl list-unit-files --no-legend 'slipway*' | sed 's/^/unit file /'`,
	} {
		out = append(out, strings.Split(strings.TrimSpace(h.run(t, "sh", "-c", script).must(t, script).stdout), "\n")...)
	}
	slices.Sort(out)
	return out
}

// without returns the lines of s that are not in other.
func (s hostState) without(other hostState) hostState {
	return slices.DeleteFunc(slices.Clone(s), func(line string) bool {
		_, found := slices.BinarySearch(other, line)
		return found
	})
}

// show returns what systemd knows of a unit, separated by blanks, in the given order.
func (h *debianHost) show(t *testing.T, unit string, properties ...string) string {
	t.Helper()
	var values []string
	for _, property := range properties {
		values = append(values, strings.TrimSpace(h.run(t, "systemctl", "show", "--value", "-p", property, unit).must(t, "systemctl show "+unit).stdout))
	}
	return strings.Join(values, " ")
}

// pids are the main processes of slipway's units.
func (h *debianHost) pids(t *testing.T) string {
	t.Helper()
	return h.show(t, slipwayUnits[0], "MainPID") + " " + h.show(t, slipwayUnits[1], "MainPID")
}

func (h *debianHost) kubectl(t *testing.T, args ...string) result {
	t.Helper()
	return h.run(t, append([]string{"kubectl", "--cache-dir=/tmp/kubectl", "--kubeconfig", "/etc/kubernetes/super-admin.conf"}, args...)...)
}

// ps returns the host's containers by name.
func (h *debianHost) ps(t *testing.T) map[string]container {
	t.Helper()
	var rows []container
	r := h.run(t, "slipway", "ps", "-o", "json").must(t, "slipway ps")
	if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil {
		t.Fatalf("reading slipway ps: %v\n%s", err, r.stdout)
	}
	out := map[string]container{}
	for _, row := range rows {
		out[row.Container] = row
	}
	return out
}

// healthy says why a component is not running and ready, or "".
func (h *debianHost) healthy(t *testing.T) func() string {
	return func() string {
		have := h.ps(t)
		for _, name := range controlPlane {
			if c := have[name]; c.State != "Running" || !c.Ready {
				return name + ": " + c.State
			}
		}
		return ""
	}
}

// unchanged fails the test where a container is not the one it was.
func (h *debianHost) unchanged(t *testing.T, before map[string]container) {
	t.Helper()
	if diff := cmp.Diff(before, h.ps(t)); diff != "" {
		t.Errorf("the containers are not those of before (- before, + after):\n%s", diff)
	}
}
