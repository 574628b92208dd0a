package reset

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/slipway-k8s/slipway/phases/ledger"
)

// machine is a real containerd with real containers, in directories of its own.
type machine struct {
	dir, socket, cgroup string
	entries             []ledger.Entry
	live                *Live
	containerd          *exec.Cmd
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	for _, program := range []string{"containerd", "ctr", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	dir, err := os.MkdirTemp("/run", "slipway-reset-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{dir: dir, socket: dir + "/c.sock", cgroup: "/" + filepath.Base(dir)}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n"+
		"[plugins.\"io.containerd.internal.v1.opt\"]\npath = %q\n", dir+"/root", dir+"/state", m.socket, dir+"/opt")
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	argv := []string{"containerd", "--config", dir + "/config.toml"}
	m.containerd = exec.Command(argv[0], argv[1:]...)
	m.containerd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.containerd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.containerd.Process.Kill()
		_ = m.containerd.Wait()
	})
	await(t, func() error {
		conn, err := net.Dial("unix", m.socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
	m.entries = []ledger.Entry{
		{Kind: ledger.Runtime, Own: true, Socket: m.socket, Root: dir + "/root", State: dir + "/state"},
		{Kind: ledger.Cgroup, Path: m.cgroup},
		{Kind: ledger.Tree, Path: dir},
		{Kind: ledger.Process, Name: "containerd", Role: ledger.PodRuntime, Argv: argv},
	}
	m.live = &Live{Ledger: dir + "/none/ledger.jsonl", Lock: dir + "/none/lock", Cgroups: "/sys/fs/cgroup"}
	return m
}

// run starts a container as the CRI plugin would name and place it.
func (m *machine) run(t *testing.T, pod, container string) {
	t.Helper()
	rootfs := m.dir + "/rootfs"
	if _, err := os.Stat(rootfs); err != nil {
		build := exec.Command("go", "build", "-o", rootfs+"/sleeper", "./testdata/sleeper")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	id := fmt.Sprintf("%064x", []byte(pod+container))
	args := []string{"--address", m.socket, "--namespace", "k8s.io", "run", "--detach", "--rootfs", "--runc-root", m.dir + "/runc",
		"--cgroup", m.cgroup + "/pod" + pod + "/" + id, "--annotation", "io.kubernetes.cri.sandbox-name=" + pod,
		"--annotation", "io.kubernetes.cri.container-name=" + container, rootfs, id[len(id)-64:], "/sleeper"}
	if out, err := exec.Command("ctr", args...).CombinedOutput(); err != nil {
		t.Fatalf("ctr: %v: %s", err, out)
	}
}

// mount mounts a tmpfs with a file on it.
func (m *machine) mount(t *testing.T, name string) {
	t.Helper()
	dir := filepath.Join(m.dir, name)
	if err := errors.Join(os.MkdirAll(dir, 0o755), syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"), os.WriteFile(dir+"/file", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func TestResetOfARealContainerd(t *testing.T) {
	for name, kill := range map[string]bool{"alive": false, "dead": true} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.run(t, "etcd-node1", "etcd")
			m.run(t, "kube-apiserver-node1", "kube-apiserver")
			m.run(t, "kube-apiserver-node1", "")
			m.mount(t, "state/shm")
			m.mount(t, "state/shm/nested")
			var sockets []string
			for _, b := range bundles(m.dir + "/state") {
				sockets = append(sockets, b.socket)
			}
			if len(sockets) != 3 || sockets[0] == "" {
				t.Fatalf("shim sockets of 3 containers: %q", sockets)
			}
			if kill {
				if err := m.containerd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = m.containerd.Wait()
			} else {
				go m.containerd.Wait() //nolint:errcheck // reaps it, as init would
			}

			seen, err := m.live.Look(t.Context(), m.entries)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := Plan(m.entries, seen)
			if err != nil {
				t.Fatal(err)
			}
			var steps []string
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := Run(ctx, plan, m.live, func(p Progress) {
				if p.Done {
					step, _, _ := strings.Cut(p.Action.String(), " (pid")
					steps = append(steps, strings.ReplaceAll(step, m.dir, "DIR"))
				}
			}); err != nil {
				t.Fatal(err)
			}
			want := []string{
				"stop container kube-apiserver of kube-apiserver-node1", "stop container etcd of etcd-node1", "stop sandbox of kube-apiserver-node1",
				"stop process containerd", "end shims and containers left of DIR/c.sock", "unmount what is below DIR/state",
				"remove cgroups below " + m.cgroup + " that are empty", "remove DIR and all that is in it",
			}
			if kill {
				want = slices.Delete(want, 3, 4)
			}
			if !slices.Equal(steps, want) {
				t.Errorf("steps\n%s\nwant\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
			}

			after, err := processes()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range after {
				if strings.Contains(strings.Join(p.Argv, " "), m.dir) {
					t.Errorf("still runs: %q", p.Argv)
				}
			}
			mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(m.dir))
			if err != nil || len(mounts) > 0 {
				t.Errorf("still mounted: %v, %v", mounts, err)
			}
			for _, h := range m.live.hierarchies() {
				if exists(filepath.Join(h, m.cgroup)) {
					t.Errorf("cgroup %s%s is left", h, m.cgroup)
				}
			}
			if exists(m.dir) {
				t.Errorf("%s is left", m.dir)
			}
			for _, socket := range sockets {
				if exists(socket) {
					t.Errorf("shim socket %s is left", socket)
				}
			}
		})
	}
}

// A mount that came after the plan is not entered either, and keeps the ledger for the next reset.
func TestResetDoesNotDeleteThroughAForeignMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	m := &machine{dir: t.TempDir()}
	live := &Live{Ledger: m.dir + "/state/ledger.jsonl", Lock: m.dir + "/state/lock"}
	if err := os.MkdirAll(m.dir+"/state", 0o755); err != nil {
		t.Fatal(err)
	}
	entries := []ledger.Entry{{Kind: ledger.Tree, Path: m.dir + "/etcd"}}
	m.mount(t, "etcd/disk")
	reset := func(late string) (string, error) {
		seen, err := live.Look(t.Context(), entries)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Plan(entries, seen)
		if err != nil {
			t.Fatal(err)
		}
		if late != "" {
			m.mount(t, late)
		}
		var kept []string
		err = Run(t.Context(), plan, live, func(p Progress) {
			if p.Done && p.Action.Op == Keep {
				kept = append(kept, strings.ReplaceAll(p.Action.String(), m.dir, "DIR"))
			}
		})
		return strings.Join(kept, "\n"), err
	}
	_, err := reset("etcd/late")
	if err == nil || !strings.Contains(err.Error(), "unmount it, then run reset again") {
		t.Errorf("error %v, want one that names the mount", err)
	}
	kept, err := reset("")
	if err != nil || !strings.HasPrefix(kept, "keep DIR/etcd/disk: something is mounted there") {
		t.Errorf("kept %q, %v", kept, err)
	}
	for _, file := range []string{"/etcd/disk/file", "/etcd/late/file"} {
		if !exists(m.dir + file) {
			t.Errorf("%s is gone", file)
		}
	}
}

// await asks until there is no error.
func await(t *testing.T, ready func() error) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}
