//go:build e2e

package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// answersWithin is how soon the API must answer once apply has decided to go back.
const answersWithin = 15 * time.Second

// TestApply changes a control plane that runs: for good and for bad, with nothing to change, and killed in between. No
// object is lost, and what is not affected runs on in the same containers.
func TestApply(t *testing.T) {
	initialised(t)
	eventually(t, time.Minute, "health", healthy(t, controlPlane...))
	for i := range 20 {
		superKubectl(t, "create", "configmap", fmt.Sprintf("cargo-%d", i), "--from-literal=weight="+strings.Repeat("7", i+1)).must(t, "creating a ConfigMap")
	}
	superKubectl(t, "label", "configmaps", "--field-selector", "metadata.name!=kube-root-ca.crt", "cargo=all").must(t, "labelling the ConfigMaps")
	objects := cargo(t)
	if n := strings.Count(objects, "\n"); n != 20 {
		t.Fatalf("%d ConfigMaps are there before anything happens, want 20:\n%s", n, objects)
	}
	t.Run("unchanged", func(t *testing.T) {
		before := ps(t)
		if r := applied(t, ""); r.took > 20*time.Second || !strings.Contains(r.stderr, "there is nothing to change") || r.stdout != "" {
			t.Errorf("after %v:\n%s%s", r.took, r.stdout, r.stderr)
		}
		unchanged(t, before, controlPlane...)
	})
	t.Run("good", func(t *testing.T) {
		before := ps(t)
		applied(t, "scheduler: {extraArgs: [{name: v, value: '3'}]}")
		unchanged(t, before, "etcd", "kube-apiserver", "kube-controller-manager")
		runsWith(t, "kube-scheduler", "--v=3")
		if stored := storedConfig(t); !strings.Contains(stored, "name: v") {
			t.Errorf("the cluster has stored\n%s", stored)
		}
	})
	t.Run("by a flag alone", func(t *testing.T) {
		before := ps(t)
		slipway(t, "apply", "--yes", "--apiserver-cert-extra-sans", "harbour.example").must(t, "slipway apply with the stored configuration")
		unchanged(t, before, "etcd")
		runsWith(t, "kube-scheduler", "--v=3") // what is stored and not named stays
		serves(t, "harbour.example")
	})
	for _, bad := range []struct{ component, config string }{
		{"kube-apiserver", "apiServer: {extraArgs: [{name: no-such-flag, value: '1'}]}"},
		{"etcd", "etcd: {local: {extraArgs: [{name: no-such-flag, value: '1'}]}}"},
		{"kube-scheduler", "scheduler: {extraArgs: [{name: no-such-flag, value: '1'}]}"},
	} {
		t.Run("bad "+bad.component, func(t *testing.T) { badFlagIsTakenBack(t, bad.component, bad.config) })
		same := cargo(t)
		if same != objects {
			t.Fatalf("objects were lost or changed:\nbefore\n%s\nafter\n%s", objects, same)
		}
	}
	t.Run("killed", killedApplyIsContinued)
	if after := cargo(t); after != objects {
		t.Errorf("objects were lost or changed:\nbefore\n%s\nafter\n%s", objects, after)
	}
}

// applied applies a ClusterConfiguration.
func applied(t *testing.T, lines string) result {
	t.Helper()
	return slipway(t, "apply", "--yes", "--image-archives", archives(), "--config", configuration(t, lines)).must(t, "slipway apply")
}

// cargo returns the ConfigMaps that the test made, with uids, versions and contents.
func cargo(t *testing.T) string {
	t.Helper()
	return superKubectl(t, "get", "configmaps", "-l", "cargo=all", "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.metadata.resourceVersion} {.data}{"\n"}{end}`).
		must(t, "reading the ConfigMaps").stdout
}

func storedConfig(t *testing.T) string {
	t.Helper()
	return superKubectl(t, "-n", "kube-system", "get", "configmap", "kubeadm-config", "-o", "jsonpath={.data.ClusterConfiguration}").must(t, "reading kubeadm-config").stdout
}

// runsWith fails the test unless a process of the component has the flag.
func runsWith(t *testing.T, component, flag string) {
	t.Helper()
	if out, err := exec.Command("pgrep", "-af", "^"+component+" .*"+flag).CombinedOutput(); err != nil {
		t.Errorf("no %s runs with %s: %v %s", component, flag, err, out)
	}
}

// serves fails the test unless the API server's certificate has the name.
func serves(t *testing.T, name string) {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", "127.0.0.1:6443", &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname(name); err != nil {
		t.Error(err)
	}
}

// badFlagIsTakenBack applies what a component does not take: the files are what they were, what runs is too, the message
// says why, and the API answers soon after the decision, which is when the manifest is put back.
func badFlagIsTakenBack(t *testing.T, component, config string) {
	path := filepath.Join(manifests, component+".yaml")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slipway(t, "apply", "--dry-run", "--config", configuration(t, config)).refuses(t, "Flag-"+component, "no-such-flag")
	answered := make(chan time.Duration, 1)
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { answered <- answersAfterReturn(t, path, string(before), done) })
	r := slipway(t, "apply", "--yes", "--ignore-preflight-errors", "all", "--image-archives", archives(), "--config", configuration(t, config))
	close(done)
	watching.Wait()
	if took := <-answered; took > answersWithin {
		t.Errorf("the API answered %v after the manifest was put back, wanted %v", took, answersWithin)
	} else {
		t.Logf("apply went back within %v; the API answered %v after the decision", r.took.Round(time.Millisecond), took.Round(time.Millisecond))
	}
	if r.code != 3 {
		t.Fatalf("exit code %d:\n%s", r.code, r.stderr)
	}
	for _, text := range []string{"slipway: " + component + " cannot start: it exited with code ", "no-such-flag", "likely cause: the flag --no-such-flag is not one that " + component + " knows",
		"all is as it was before: ", "mend the configuration"} {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("apply does not say %q:\n%s", text, r.stderr)
		}
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("%s is not what it was: %v\n%s", path, err, after)
	}
	if _, err := os.Stat("/var/lib/slipway/apply.json"); err == nil {
		t.Error("the record is left")
	}
	healthyNow := healthy(t, controlPlane...)()
	if healthyNow != "" {
		t.Errorf("after apply: %s", healthyNow)
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
		}
	}
	pods := run(t, time.Minute, "curl", "-sf", "--unix-socket", "/run/slipway/slipway.sock", "http://slipway/pods").must(t, "asking the supervisor")
	if err := json.Unmarshal([]byte(pods.stdout), &list); err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if reason := p.Metadata.Annotations["slipway.dev/rejected"]; reason != "" {
			t.Errorf("%s still runs in the place of another version: %s", p.Metadata.Name, reason)
		}
	}
}

// answersAfterReturn waits until the manifest has been another one and is the old one again, and returns how long after
// that the API answered first.
func answersAfterReturn(t *testing.T, path, before string, done <-chan struct{}) time.Duration {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	other := false
	var back time.Time
	for {
		data, err := os.ReadFile(path)
		switch {
		case err != nil:
		case string(data) != before:
			other = true
		case other && back.IsZero():
			back = time.Now()
		}
		if !back.IsZero() && superKubectl(t, "get", "--raw", "/readyz", "--request-timeout=1s").code == 0 {
			return time.Since(back)
		}
		select {
		case <-tick.C:
		case <-done:
			if back.IsZero() {
				t.Error("the manifest was never put back")
				return 0
			}
			done = nil // the API is asked until it answers, or the test ends
		case <-t.Context().Done():
			return time.Hour
		}
	}
}

// killedApplyIsContinued kills an apply while a component is replaced: nothing is half written. Run again it goes on, and
// one that was killed is taken back on demand. Until then nothing else writes files.
func killedApplyIsContinued(t *testing.T) {
	path := filepath.Join(manifests, "kube-scheduler.yaml")
	kill := func(lines string) {
		t.Helper()
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(slipwayBinary(), "apply", "--yes", "--image-archives", archives(), "--config", configuration(t, lines))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "the scheduler's new manifest", func() string {
			if data, err := os.ReadFile(path); err != nil || string(data) == string(before) {
				return "it is the old one"
			}
			return ""
		})
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if _, err := os.Stat("/var/lib/slipway/apply.json"); err != nil {
			t.Errorf("no record of what was interrupted: %v", err)
		}
	}
	kill("scheduler: {extraArgs: [{name: v, value: '4'}]}")
	applied(t, "scheduler: {extraArgs: [{name: v, value: '4'}]}")
	runsWith(t, "kube-scheduler", "--v=4")
	kill("scheduler: {extraArgs: [{name: v, value: '5'}]}")
	for _, args := range [][]string{{"init"}, {"readdress", "--apiserver-advertise-address", "192.0.2.1"}} { // both would write over it
		if r := slipway(t, args...); r.code != 1 || !strings.Contains(r.stderr, "an apply that was begun on ") || !strings.Contains(r.stderr, "slipway apply --take-back") {
			t.Errorf("slipway %q beside what was interrupted: exit code %d\n%s", args, r.code, r.stderr)
		}
	}
	slipway(t, "apply", "--take-back").must(t, "slipway apply --take-back")
	runsWith(t, "kube-scheduler", "--v=4")
	if d := slipway(t, "diff", "--config", configuration(t, "scheduler: {extraArgs: [{name: v, value: '4'}]}")); d.code != 0 {
		t.Errorf("slipway diff: exit code %d\n%s", d.code, d.stdout)
	}
}
