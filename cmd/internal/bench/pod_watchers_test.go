//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
)

// podWatcher runs pods in one of the ways that are compared. After start it is ready for the first manifest.
type podWatcher interface {
	kind() watcherKind
	start(ctx context.Context) error
	stop() // the pods run on
	// add, change and remove bring about what the benchmark waits for. Those of slipway and the kubelet return at once.
	add(ctx context.Context, pods ...string) error
	change(ctx context.Context, pod string) error
	remove(ctx context.Context, pod string) error
	// restart starts a killed container again. It is nothing to those who see that themselves.
	restart(ctx context.Context, pod string) error
}

// resident is a watcher that is a process.
type resident interface {
	podWatcher
	pid() int
	// listed is how many pods it says are running.
	listed(ctx context.Context) (int, error)
}

// podManifest is what all of them run: one container on the host's network that ends at once when it is asked to.
func podManifest(pod string, version int) *podtest.Manifest {
	return podtest.Pod(pod).Container("main", "signal:TERM=0", "print:version "+strconv.Itoa(version), "forever").Grace(10)
}

// manifests is what slipway and the kubelet have in common: files.
type manifests struct{ node *podtest.Node }

func (m manifests) add(_ context.Context, pods ...string) error {
	for _, pod := range pods {
		m.node.Put(pod+".yaml", podManifest(pod, 1).YAML())
	}
	return nil
}

func (m manifests) change(_ context.Context, pod string) error {
	m.node.Put(pod+".yaml", podManifest(pod, 2).YAML())
	return nil
}

func (m manifests) remove(_ context.Context, pod string) error {
	m.node.Remove(pod + ".yaml")
	return nil
}

func (manifests) restart(context.Context, string) error { return nil }

// slipwayWatcher is slipway supervise.
type slipwayWatcher struct {
	manifests
	args []string
}

func (s *slipwayWatcher) kind() watcherKind { return slipwayPods }
func (s *slipwayWatcher) pid() int          { return s.node.SupervisorPID() }
func (s *slipwayWatcher) stop()             { s.node.StopSupervisor() }

func (s *slipwayWatcher) start(context.Context) error {
	s.node.StartSupervisor(s.args...)
	return nil
}

func (s *slipwayWatcher) listed(context.Context) (int, error) {
	body, code, err := s.node.Get("/pods")
	if err != nil || code != http.StatusOK {
		return 0, err
	}
	return runningIn(body)
}

// kubeletWatcher is a standalone kubelet, without an API server, that reads the same configuration file.
type kubeletWatcher struct {
	manifests
	program string
	port    int // the read-only one
	process *podtest.Process
}

func (k *kubeletWatcher) kind() watcherKind { return kubeletPods }
func (k *kubeletWatcher) pid() int          { return k.process.PID() }
func (k *kubeletWatcher) stop()             { k.process.Stop(20 * time.Second) }

func (k *kubeletWatcher) start(context.Context) error {
	root := filepath.Join(k.node.Dir, "kubelet")
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		return err
	}
	for _, file := range hierarchies { // the kubelet wants its cgroupRoot to be there
		if err := os.MkdirAll(filepath.Join(filepath.Dir(file), k.node.Cgroup), 0o755); err != nil {
			return fmt.Errorf("making the kubelet's cgroup: %w", err)
		}
	}
	// An address saves the kubelet a question to a DNS server, which costs it seconds where none answers.
	k.process = k.node.Start("kubelet", k.program, "--config="+k.node.Config, "--root-dir="+root, "--cert-dir="+filepath.Join(root, "pki"),
		"--hostname-override="+k.node.Name, "--node-ip="+nodeAddress())
	return nil
}

// nodeAddress is one of the host's, which the kubelet demands; "" leaves the choice to it.
func nodeAddress() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addresses {
		if prefix, ok := a.(*net.IPNet); ok && prefix.IP.IsGlobalUnicast() {
			return prefix.IP.String()
		}
	}
	return ""
}

func (k *kubeletWatcher) listed(ctx context.Context) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/pods", k.port), nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		return 0, err
	}
	return runningIn(body)
}

// runningIn counts the pods of a v1.PodList whose containers all run, as both serve it.
func runningIn(list []byte) (int, error) {
	var pods struct {
		Items []struct {
			Status struct {
				ContainerStatuses []struct {
					ContainerID string
					State       struct{ Running *struct{} }
				}
			}
		}
	}
	if err := json.Unmarshal(list, &pods); err != nil {
		return 0, fmt.Errorf("reading the pods: %w", err)
	}
	n := 0
	for _, p := range pods.Items {
		if s := p.Status.ContainerStatuses; len(s) == 1 && s[0].State.Running != nil && s[0].ContainerID != "" {
			n++
		}
	}
	return n, nil
}
