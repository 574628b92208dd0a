//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// TestDoctor breaks one thing after the other on one control plane, and mends it as doctor says.
func TestDoctor(t *testing.T) {
	initialised(t)
	eventually(t, time.Minute, "the control plane", healthy(t, controlPlane...))
	eventually(t, 30*time.Second, "a node that is fine", nothingWrong(t))
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"a manifest that is no YAML", doctorNamesABrokenManifest},
		{"an unknown flag", doctorNamesAnUnknownFlag},
		{"containerd hangs", doctorNamesAContainerdThatHangs},
		{"the supervisor is killed", doctorNamesADeadSupervisor},
		{"files that hang", doctorSaysWhatItCouldNotRead},
		{"a port that is taken", doctorNamesWhoHasAPort},
		{"a certificate that ends soon", doctorNamesACertificateThatEndsSoon},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
		eventually(t, time.Minute, "a node that is fine after that", nothingWrong(t))
	}
}

// nothingWrong says what doctor finds wrong with the control plane, or "". What it says of the machine is the machine's: a
// slow disk, a clock that nobody keeps.
func nothingWrong(t *testing.T) func() string {
	return func() string {
		for _, f := range doctor(t).Findings {
			switch f.Check {
			case "Runtime", "Supervisor", "Component", "Manifest", "Rollback", "Mirror", "APIServer", "Etcd", "EtcdSize", "EtcdFragmentation",
				"Certificate", "Certificates", "Kubeconfigs", "VersionSkew", "Files", "Unanswered":
				return fmt.Sprintf("%+v", f)
			}
			if f.Severity == "error" {
				return fmt.Sprintf("%+v", f)
			}
		}
		return ""
	}
}

// finds waits for a finding of the severity and check, with all the words in its message or what to do about it.
func finds(t *testing.T, severity, check string, words ...string) {
	t.Helper()
	eventually(t, 90*time.Second, "the finding ["+check+"] "+strings.Join(words, ", "), func() string {
		d := doctor(t)
		if d.took > 15*time.Second {
			t.Fatalf("doctor took %v", d.took)
		}
		for _, f := range d.Findings {
			text := f.Message + ": " + f.Fix
			missing := func() bool {
				for _, w := range words {
					if !strings.Contains(text, w) {
						return true
					}
				}
				return false
			}
			if f.Severity == severity && f.Check == check && !missing() {
				t.Logf("after %v: %s [%s] %s", d.took.Round(time.Millisecond), f.Severity, f.Check, text)
				return ""
			}
		}
		return fmt.Sprintf("%+v", d.Findings)
	})
}

func doctorNamesABrokenManifest(t *testing.T) {
	restore := edit(t, "kube-scheduler", func(s string) string { return strings.Replace(s, "spec:", "spec: {", 1) })
	defer restore()
	finds(t, "warning", "Manifest", "the manifest of kube-scheduler is not taken", "is not valid YAML", "slipway validate "+manifests+"/kube-scheduler.yaml")
}

func doctorNamesAnUnknownFlag(t *testing.T) {
	restore := edit(t, "kube-scheduler", func(s string) string {
		return strings.Replace(s, "- --leader-elect=true", "- --leader-elect=true\n    - --leader-elct=true", 1)
	})
	defer restore()
	finds(t, "error", "Flag-kube-scheduler", `"leader-elct"`, `did you mean "leader-elect"?`)
}

// doctorNamesAContainerdThatHangs stops containerd: it takes connections and answers nothing.
func doctorNamesAContainerdThatHangs(t *testing.T) {
	found := run(t, time.Minute, "pgrep", "-f", "^[^ ]*containerd --config /var/lib/slipway/").must(t, "finding containerd")
	var pid int
	if n, err := fmt.Sscan(found.stdout, &pid); n != 1 || err != nil {
		t.Fatalf("containerd's pid: %q", found.stdout)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // the next step would tell
	finds(t, "error", "Runtime", "containerd does not answer at /run/slipway/containerd.sock: no answer within 3s")
}

func doctorNamesADeadSupervisor(t *testing.T) {
	before := ps(t)
	stopProcess(t, fmt.Sprint(supervisorPID(t)), syscall.SIGKILL)
	finds(t, "error", "Supervisor", "the supervisor does not run", "slipway init phase supervisor supervise")
	slipway(t, "init", "phase", "supervisor", "supervise").must(t, "what doctor says to do")
	eventually(t, 30*time.Second, "adoption", healthy(t, controlPlane...))
	unchanged(t, before, controlPlane...)
}

// doctorSaysWhatItCouldNotRead has a configuration in a pipe that nobody writes to, as a file on a disk that hangs.
func doctorSaysWhatItCouldNotRead(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "config.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, 30*time.Second, slipwayBinary(), "doctor", "--config", pipe)
	if r.code != 3 || r.took > 15*time.Second || strings.Contains(r.stdout, "no control plane") || !strings.Contains(r.stdout, "[Files] the files of the control plane cannot be read in time") {
		t.Errorf("exit code %d after %v:\n%s%s", r.code, r.took, r.stdout, r.stderr)
	}
}

// doctorNamesWhoHasAPort takes one of kube-proxy's.
func doctorNamesWhoHasAPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:10256")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	finds(t, "note", "Port-10256", fmt.Sprintf("port 10256, which kube-proxy would need, is taken by process %d", os.Getpid()), "127.0.0.1:10256")
}

// doctorNamesACertificateThatEndsSoon has one that was made for a year end in twenty days. The supervisor, which would renew
// it, looks once an hour.
func doctorNamesACertificateThatEndsSoon(t *testing.T) {
	paths := config.NewPaths("")
	items := renewal.Survey(artifact.Disk{}, paths)
	authorities, err := renewal.Authorities(artifact.Disk{}, paths, items, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(items, func(it renewal.Item) bool { return it.Name == "front-proxy-client" })
	if i < 0 {
		t.Fatalf("no front-proxy-client among %+v", items)
	}
	r := pki.RequestLike(items[i].Cert, time.Now())
	r.NotAfter = time.Now().Add(20 * 24 * time.Hour)
	r.NotBefore = r.NotAfter.Add(-365 * 24 * time.Hour)
	if err := renewal.Renew(artifact.Disk{}, paths, items[i], r, authorities[items[i].CA]); err != nil {
		t.Fatal(err)
	}
	finds(t, "warning", "Certificate", "front-proxy-client.crt expires on ", "in 19 days", "slipway certs renew front-proxy-client")
	slipway(t, "certs", "renew", "front-proxy-client").must(t, "what doctor says to do")
}
