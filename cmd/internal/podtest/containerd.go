//go:build e2e || bench

package podtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/slipway-k8s/slipway/runtime/containerd"
)

// containerdStart is how long containerd may take to be ready: 0.2 s on an idle machine.
const containerdStart = 60 * time.Second

// ContainerdLog is the file with the output of every run of containerd.
func (n *Node) ContainerdLog() string { return filepath.Join(n.Dir, "containerd.log") }

// state is containerd's directory of what runs.
func (n *Node) state() string { return filepath.Join(n.Dir, "state") }

func (n *Node) configureContainerd() error {
	facts, err := containerd.Detect(n.Dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.Dir, "containerd.toml"), containerd.Config(containerd.ConfigOptions{
		Root: filepath.Join(n.Dir, "root"), State: n.state(), Socket: n.Socket, SandboxImage: PauseImage, Facts: facts,
		CNIConfDir: filepath.Join(n.Dir, "cni"),
	}), 0o600)
}

// StartContainerd starts containerd and returns when it answers.
func (n *Node) StartContainerd() {
	n.t.Helper()
	argv := containerd.Command(filepath.Join(n.Dir, "containerd.toml"))
	var env []string
	switch n.options.Containerd {
	case "", "1.6":
		path, err := exec.LookPath(argv[0])
		n.must(err)
		argv[0] = path
	case "2":
		argv[0] = n.program("containerd") // and its shim from the same directory
		env = append(env, "PATH="+filepath.Dir(argv[0])+":"+os.Getenv("PATH"))
	default:
		n.t.Fatalf("podtest: there is no containerd %q", n.options.Containerd)
	}
	var err error
	n.containerd, err = start(n.ContainerdLog(), env, n.inNetwork(argv)...)
	n.must(err)
	ctx, cancel := context.WithTimeout(n.t.Context(), containerdStart)
	defer cancel()
	if err := containerd.WaitReady(ctx, n.Socket); err != nil {
		n.t.Fatalf("podtest: %v\n%s", err, tail(n.ContainerdLog(), 20))
	}
}

// StopContainerd ends containerd; the containers run on.
func (n *Node) StopContainerd() { n.containerd.Stop(20 * time.Second) }

// KillContainerd ends containerd with SIGKILL; the containers run on.
func (n *Node) KillContainerd() { n.containerd.Stop(0) }

// PauseContainerd makes containerd accept connections and answer nothing, until ResumeContainerd.
func (n *Node) PauseContainerd() { n.containerd.Signal(syscall.SIGSTOP) }

// ResumeContainerd undoes PauseContainerd.
func (n *Node) ResumeContainerd() { n.containerd.Signal(syscall.SIGCONT) }

// ContainerdPID is the process that StartContainerd started last.
func (n *Node) ContainerdPID() int { return n.containerd.PID() }

func (n *Node) importImages() error {
	ctx, cancel := context.WithTimeout(n.t.Context(), 2*time.Minute)
	defer cancel()
	store, err := containerd.Open(ctx, n.Socket)
	if err != nil {
		return err
	}
	defer store.Close()
	archives := append([]string{filepath.Join(n.Repository, "bin/images/pause.tar"), n.program("subject.tar")}, n.options.Archives...)
	for _, path := range archives {
		if _, err := store.Load(ctx, path, func(int64, int64, string) {}); err != nil {
			return fmt.Errorf("%w; run make programs", err)
		}
	}
	return nil
}
