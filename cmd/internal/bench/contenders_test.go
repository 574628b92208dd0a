//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// A contender brings up a control plane in one of the ways that are compared.
type contender struct {
	name string
	// start brings it up, and returns when the command has ended and every component was healthy.
	start func(context.Context) (outcome, error)
	// watcher is the pid of what watches over the pods now.
	watcher func() (int, error)
	// stop takes the control plane away, also a half one.
	stop func(context.Context) error
	// resets is whether stop, as a user runs it, is to leave nothing. For the others the clean-up does the rest.
	resets bool
}

// outcome is what one run took. Every duration counts from the start of the command.
type outcome struct {
	Whole   time.Duration // 0 where there is no command: the processes are started by hand
	Arrived arrivals
	Printed []line
}

// timed runs a command while the components' health is watched.
func timed(ctx context.Context, env []string, argv ...string) (outcome, error) {
	w := watchHealth(ctx, time.Now(), "/etc/kubernetes/super-admin.conf")
	printed, took, err := command(ctx, env, argv...)
	if err != nil {
		w.abandon()
		return outcome{Printed: printed}, err
	}
	arrived, err := w.wait()
	return outcome{Whole: took, Arrived: arrived, Printed: printed}, err
}

// slipwayInit is `slipway init` with these arguments.
func (b *bench) slipwayInit(name string, args ...string) contender {
	return contender{
		name: name,
		start: func(ctx context.Context) (outcome, error) {
			return timed(ctx, nil, append([]string{b.slipway, "init"}, args...)...)
		},
		watcher: supervisorPID,
		resets:  true,
		stop: func(ctx context.Context) error {
			_, _, err := command(ctx, nil, b.slipway, "reset", "--force")
			if err != nil { // the benchmark goes no further, but leaves nothing either
				if pid, e := supervisorPID(); e == nil {
					kill(pid)
				}
				if pid, e := readPID("/run/slipway/containerd.pid"); e == nil {
					kill(pid)
				}
				killShims("/run/slipway/containerd.sock")
				err = errors.Join(err, b.engine.clear(ctx))
			}
			return err
		},
	}
}

func supervisorPID() (int, error) { return readPID("/run/slipway/supervise.pid") }

func readPID(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("finding the process: %w", err)
	}
	var file struct{ PID int }
	if err := json.Unmarshal(data, &file); err != nil {
		return 0, fmt.Errorf("finding the process by %q: %w", path, err)
	}
	return file.PID, nil
}

func kill(pid int) {
	if process, err := os.FindProcess(pid); err == nil {
		process.Kill() //nolint:errcheck // it may have ended
	}
}

// byHand starts the four programs with the flags of the manifests, without containers: what no tool can beat. With
// held, the controller manager and the scheduler are started when the API server is ready.
func (b *bench) byHand(name string, held bool) contender {
	var running []*process
	return contender{
		name: name,
		start: func(ctx context.Context) (outcome, error) {
			if err := os.MkdirAll(b.floorData(), 0o700); err != nil {
				return outcome{}, fmt.Errorf("making etcd's directory: %w", err)
			}
			w := watchHealth(ctx, time.Now(), filepath.Join(b.tree(), "etc/kubernetes/super-admin.conf"))
			for _, component := range controlPlane {
				if held && component == "kube-controller-manager" {
					select {
					case <-w.ready:
					case <-time.After(healthyWithin):
					case <-ctx.Done():
					}
				}
				p, err := startProcess(filepath.Join(b.dir, component+".log"), b.byHandArgv[component]...)
				if err != nil {
					w.abandon()
					return outcome{}, err
				}
				running = append(running, p)
			}
			arrived, err := w.wait()
			for _, p := range running {
				if err != nil {
					err = fmt.Errorf("%w\n%s", err, p.complaint())
				}
			}
			return outcome{Arrived: arrived}, err
		},
		stop: func(context.Context) error {
			for _, p := range slices.Backward(running) {
				p.stop(0)
			}
			running = nil
			return os.RemoveAll(b.floorData())
		},
	}
}

// floorData is where the etcd that is started by hand keeps its data: on the file system of the real one's.
func (b *bench) floorData() string { return "/var/lib/etcd" }

// tree is where the files of the processes that are started by hand lie.
func (b *bench) tree() string { return filepath.Join(b.dir, "tree") }

// render makes the files of a node below the benchmark's directory and takes the command lines from its manifests.
func (b *bench) render(ctx context.Context) error {
	tree := b.tree()
	if _, _, err := command(ctx, nil, b.slipway, "init", "--root", tree); err != nil {
		return err
	}
	b.byHandArgv = map[string][]string{}
	for _, component := range controlPlane {
		path := filepath.Join(tree, "etc/kubernetes/manifests", component+".yaml")
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("reading a manifest: %w", err)
		}
		var pod corev1.Pod
		if err := yaml.UnmarshalStrict(data, &pod); err != nil {
			return fmt.Errorf("reading %q: %w", path, err)
		}
		argv := slices.Clone(pod.Spec.Containers[0].Command)
		argv[0] = b.program(argv[0])
		for i, arg := range argv {
			argv[i] = strings.ReplaceAll(arg, "=/etc/kubernetes/", "="+tree+"/etc/kubernetes/")
			if address, found := strings.CutPrefix(arg, "--advertise-address="); found {
				b.address = address
			}
		}
		b.byHandArgv[component] = argv
	}
	if b.address == "" {
		return errors.New("the API server's manifest has no --advertise-address")
	}
	return nil
}
