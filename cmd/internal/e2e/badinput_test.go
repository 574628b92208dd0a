//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refuses fails the test unless the run ended with exit code 1, without a result, and with all of these texts.
func (r result) refuses(t *testing.T, texts ...string) {
	t.Helper()
	if r.code != 1 || r.stdout != "" {
		t.Errorf("exit code %d, want 1 and no result:\n%s\nstderr:\n%s", r.code, r.stdout, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("the message does not say %q:\n%s", text, tail(r.stderr, 30))
		}
	}
}

// TestRefusedMachineStaysAsItWas: what cannot work is said before anything is done, each problem with its evidence and
// what to do. Not even a directory appears.
func TestRefusedMachineStaysAsItWas(t *testing.T) {
	before := take(t)
	for name, try := range map[string]func(t *testing.T){
		"not root": func(t *testing.T) {
			asNobody(t, "init").refuses(t, "slipway: init must run as root", "--dry-run and --root DIRECTORY need no rights")
		},
		"no containerd": func(t *testing.T) {
			run(t, time.Minute, "env", "PATH=/nonexistent", slipwayBinary(), "init", "--image-archives", archives()).refuses(t,
				"[FileExisting-containerd] there is no containerd on PATH: install it, with apt-get install containerd",
				"[FileExisting-runc] there is no runc on PATH")
		},
		"address of another host": func(t *testing.T) {
			slipway(t, "init", "--image-archives", archives(), "--apiserver-advertise-address", "203.0.113.9").refuses(t,
				"[AdvertiseAddress] the advertise address 203.0.113.9 is not on this machine", "--apiserver-advertise-address")
		},
		"port taken": func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:10259")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			slipway(t, "init", "--image-archives", archives()).refuses(t, "[Port-10259] port 10259, which kube-scheduler needs, is taken by process "+
				fmt.Sprint(os.Getpid())+" ("+programName(t)+")", "secure-port")
		},
		"no images": func(t *testing.T) {
			slipway(t, "init", "--image-repository", "registry.invalid").refuses(t,
				"[ImagePull] missing images: registry.invalid/pause:", "registry.invalid/kube-apiserver:v1.36", "does not answer",
				"put docker or OCI archives into /var/lib/slipway/images", "slipway images load FILE")
		},
		"a kubelet runs": func(t *testing.T) {
			pid := startAs(t, "kubelet")
			slipway(t, "init", "--image-archives", archives()).refuses(t,
				fmt.Sprintf("[Owner] this machine belongs to kubelet already: process %d (kubelet 600)", pid))
		},
		"k3s was here": func(t *testing.T) {
			mkdir(t, "/var/lib/rancher", "/var/lib/rancher/k3s", "/var/lib/rancher/k3s/server")
			slipway(t, "init", "--image-archives", archives()).refuses(t, "[Owner] this machine belongs to k3s already: /var/lib/rancher/k3s/server")
		},
		"kubeadm was here": func(t *testing.T) {
			mkdir(t, "/etc/kubernetes")
			if err := os.WriteFile("/etc/kubernetes/kubelet.conf", []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.Remove("/etc/kubernetes/kubelet.conf")
			slipway(t, "init", "--image-archives", archives()).refuses(t, "[Owner] this machine belongs to kubeadm already: /etc/kubernetes/kubelet.conf")
		},
	} {
		t.Run(name, try)
		same(t, before, take(t))
	}
}

// asNobody runs slipway without rights, from a place that everybody may read.
func asNobody(t *testing.T, args ...string) result {
	t.Helper()
	dir, err := os.MkdirTemp("", "slipway-nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "slipway")
	run(t, time.Minute, "install", "-m", "755", slipwayBinary(), binary).must(t, "copying slipway")
	return run(t, time.Minute, "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", binary}, args...)...)
}

// programName is this process's as the kernel shows it, cut to 15 bytes.
func programName(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// startAs runs a program of that name which only waits, until the test ends.
func startAs(t *testing.T, name string) (pid int) {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	run(t, time.Minute, "install", "-m", "755", sleep, path).must(t, "copying sleep")
	cmd := exec.Command(path, "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, 10*time.Second, "the program's name", func() string {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		if got := strings.TrimSpace(string(data)); got != name {
			return got
		}
		return ""
	})
	return cmd.Process.Pid
}

// mkdir makes directories until the test ends; those that were there stay.
func mkdir(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		err := os.Mkdir(path, 0o755)
		if err == nil {
			t.Cleanup(func() { os.Remove(path) })
		} else if !os.IsExist(err) {
			t.Fatal(err)
		}
	}
}

// configuration writes a ClusterConfiguration with these lines and returns its path.
func configuration(t *testing.T, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	data := "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n" + lines + "\n"
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRejectedFlagIsShownAndMended: a component that does not take its flags ends init soon, with that component's own
// words. Once the configuration is mended, init goes on where it was.
func TestRejectedFlagIsShownAndMended(t *testing.T) {
	before := take(t)
	cleanUp(t)
	for _, c := range []struct{ component, config, own string }{
		{"kube-apiserver", "apiServer: {extraArgs: [{name: no-such-flag, value: '1'}]}", "unknown flag: --no-such-flag"},
		{"etcd", "etcd: {local: {extraArgs: [{name: no-such-flag, value: '1'}]}}", "flag provided but not defined: -no-such-flag"},
		{"kube-scheduler", "scheduler: {extraArgs: [{name: no-such-flag, value: '1'}]}", "unknown flag: --no-such-flag"},
	} {
		path := configuration(t, c.config)
		slipway(t, "init", "--image-archives", archives(), "--config", path).refuses(t, "[Flag-"+c.component+"] ", `"no-such-flag"`)
		r := slipway(t, "init", "--image-archives", archives(), "--config", path, "--ignore-preflight-errors", "Flag-"+c.component)
		t.Logf("%s: init ended after %v", c.component, r.took.Round(10*time.Millisecond))
		r.refuses(t, "phase wait-control-plane: "+c.component+" cannot start: it exited with code ", "last log lines of "+c.component+":", c.own,
			"likely cause: the flag --no-such-flag is not one that "+c.component+" knows: check its extraArgs", "next: slipway logs "+c.component)
		if r.took > 30*time.Second {
			t.Errorf("init took %v to tell, which is more than 30 s", r.took)
		}
		if log := slipway(t, "logs", c.component); !strings.Contains(log.stdout, c.own) {
			t.Errorf("slipway logs %s does not show the error either:\n%s", c.component, log.stdout)
		}
	}
	trace := filepath.Join(t.TempDir(), "trace.json")
	mended := slipway(t, "init", "--image-archives", archives(), "--trace", trace).must(t, "slipway init with a mended configuration")
	superKubectl(t, "get", "--raw", "/readyz").must(t, "readyz")
	if d := slipway(t, "diff"); d.code != 0 || d.stdout != "" {
		t.Errorf("slipway diff after init: exit code %d\n%s", d.code, d.stdout)
	}
	t.Run("trace", func(t *testing.T) { traceShowsThePods(t, trace) })
	t.Run("kubectl", kubectlAcceptsTheManifests)
	t.Run("secrets", func(t *testing.T) { noSecretIn(t, mended) })
	slipway(t, "reset", "--force").must(t, "slipway reset")
	same(t, before, take(t))
}

// traceShowsThePods looks for every phase, and every component's start and readiness, in a timeline.
func traceShowsThePods(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TraceEvents []struct{ Name, Ph string }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range file.TraceEvents {
		name, _, _ := strings.Cut(e.Name, " (attempt")
		if strings.HasSuffix(e.Name, "started") || strings.HasSuffix(e.Name, "until ready") {
			name += e.Name[strings.LastIndex(e.Name, ")")+1:]
		}
		found[e.Ph+" "+name] = true
	}
	want := []string{"X preflight", "X certs/ca", "X supervisor/images", "X supervisor/images (early part)", "X wait-control-plane"}
	for _, name := range controlPlane {
		want = append(want, "i "+name+" started", "X "+name+" until ready")
	}
	for _, name := range want {
		if !found[name] {
			t.Errorf("the timeline has no %q", name)
		}
	}
	if t.Failed() {
		t.Logf("%s", data)
	}
}

// kubectlAcceptsTheManifests gives what --dry-run prints to the real kubectl. The KubeletConfiguration is the kubelet's:
// no API server serves that kind.
func kubectlAcceptsTheManifests(t *testing.T) {
	printed := slipway(t, "init", "--dry-run", "-o", "yaml", "--skip-phases", "kubelet-config").must(t, "slipway init --dry-run -o yaml")
	apply := exec.Command(program("kubectl"), "--kubeconfig", "/etc/kubernetes/super-admin.conf", "--cache-dir", t.TempDir(),
		"apply", "--dry-run=client", "-f", "-")
	apply.Stdin = strings.NewReader(printed.stdout)
	out, err := apply.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl apply --dry-run=client: %v\n%s", err, out)
	}
	for _, name := range controlPlane {
		if want := "pod/" + name + " created (dry run)\n"; !strings.Contains(string(out), want) {
			t.Errorf("kubectl does not say %q:\n%s", want, out)
		}
	}
}

// noSecretIn looks for what only secret files contain, in what init printed and in what other commands print of a node.
func noSecretIn(t *testing.T, init result) {
	outputs := map[string]result{"init": init}
	for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"ps", "-o", "json"}, {"diff", "--service-cidr", "10.112.0.0/16"},
		{"init", "--dry-run", "-o", "yaml"}, {"init", "--dry-run", "-o", "json"}, {"reset", "--dry-run"}} {
		outputs[strings.Join(args, " ")] = slipway(t, args...)
	}
	for name, r := range outputs {
		for _, secret := range []string{"PRIVATE KEY", "client-key-data", "certificate-authority-data"} {
			if strings.Contains(r.stdout+r.stderr, secret) {
				t.Errorf("slipway %s prints a secret: %s", name, secret)
			}
		}
	}
}

// TestFullDiskKeepsTheOldFiles changes a tree on a disk with nothing left, then with a page more each time: whatever the
// write is that fails, every file is the old one or the new one, and the message says where and why.
func TestFullDiskKeepsTheOldFiles(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	below := []string{"init", "--root", root}
	changed := append(below, "--service-cidr", "10.112.0.0/16", "--pod-network-cidr", "10.244.0.0/16", "--skip-phases", "certs,kubeconfig")
	slipway(t, below...).must(t, "init --root")
	files := []string{"kube-apiserver", "kube-controller-manager"}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(root, manifests, name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	before := map[string]string{}
	for _, name := range files {
		before[name] = read(name)
	}
	filler := filepath.Join(root, "filler")
	size := fill(t, filler)
	refused := 0
	for ; ; refused++ {
		r := slipway(t, changed...)
		if r.code == 0 {
			break
		}
		r.refuses(t, "no space left on device", root)
		for _, name := range files {
			if got := read(name); got != before[name] && !(strings.HasSuffix(got, "\n") && strings.Contains(got, "10.112.0.0/16")) {
				t.Fatalf("%s is neither the old nor the new one:\n%s", name, got)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(root, manifests, ".*")); len(left) > 0 {
			t.Errorf("temporary files are left: %q", left)
		}
		if size -= int64(os.Getpagesize()); size < 0 {
			t.Fatal("init needs the whole disk")
		}
		if err := os.Truncate(filler, size); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("init was not refused on a full disk: this test shows nothing")
	}
	t.Logf("it went through with %d pages more", refused)
	for _, name := range files {
		if !strings.Contains(read(name), "10.112.0.0/16") {
			t.Errorf("%s is still the old one after all", name)
		}
	}
}

// fill writes a file until the disk is full and returns its size.
func fill(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for size := int64(0); ; size += int64(len(page)) {
		if _, err := f.Write(page); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			return size
		}
	}
}
