//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
	"github.com/slipway-k8s/slipway/runtime/containerd"
)

const (
	// podPatience bounds every wait. The kubelet takes the longest: up to a minute to remove a sandbox.
	podPatience = 2 * time.Minute
	// fiftyRounds is how often 50 pods are started at once, at most.
	fiftyRounds = 5
	// podCalm is how long 200 pods have been running before their idle minute begins.
	podCalm = 30 * time.Second
)

// podBench is one run of the benchmark of pods.
type podBench struct {
	options
	t      *testing.T
	node   *podtest.Node
	events *recorder
	times  podTimes
	idle   []float64 // how idle the machine was before each part

	slipway *slipwayWatcher
	kubelet *kubeletWatcher
	bare    *bareWatcher
	same    *bareWatcher
}

// TestPods measures slipway supervise with a kubelet and bare CRI calls beside it, through one containerd, and prints
// the tables. Like TestBench it fails for what cannot be measured, never for a figure.
func TestPods(t *testing.T) {
	ctx, stop := untilDeadline(t)
	defer stop()
	lock, err := lockFile(ctx, given.lock)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	defer keepMachine(t)()
	p := preparePods(ctx, t)
	began := time.Now()
	if p.same.recorded, err = p.record(ctx); err != nil {
		t.Fatalf("recording slipway's requests: %v", err)
	}
	idle := map[watcherKind]podIdle{}
	var calls, traces []string
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"one", p.onePod},
		{"fifty", p.fiftyPods},
		{"idle", func(ctx context.Context) (err error) { idle, err = p.idlePods(ctx); return err }},
		{"calls", func(ctx context.Context) (err error) { calls, err = p.callCosts(ctx); return err }},
		{"requests", func(ctx context.Context) error {
			section, err := p.requestCosts(ctx)
			calls = append(calls, section)
			return err
		}},
		{"trace", func(ctx context.Context) (err error) { traces, err = p.traces(ctx); return err }},
	} {
		if p.podsOnly != "" && !slices.Contains(strings.Split(p.podsOnly, ","), part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			t.Fatalf("%s: %v", part.name, err)
		}
	}
	p.publish(t, p.report(ctx, began, idle, append(calls, traces...)))
}

// keepMachine returns what puts back the things that a kubelet changes wherever its own directory is: some sysctls, and
// a socket for plugins.
func keepMachine(t *testing.T) (restore func()) {
	const socket = "/var/lib/kubelet/device-plugins/kubelet.sock"
	before := readSysctls()
	conn, err := net.Dial("unix", socket) // one that a killed benchmark has left is nobody's either
	if err == nil {
		conn.Close()
	}
	return func() {
		if failed := before.restore(); failed != nil {
			t.Error(failed)
		}
		for path := socket; err != nil && path != "/var/lib"; path = filepath.Dir(path) {
			os.Remove(path) //nolint:errcheck // a directory that is not empty is somebody else's
		}
	}
}

func preparePods(ctx context.Context, t *testing.T) *podBench {
	t.Helper()
	readOnly, port := freePort(t), freePort(t)
	node := podtest.New(t, podtest.Options{Program: given.slipway, Name: "bench", Kubelet: map[string]any{
		"failCgroupV1": false, "failSwapOn": false, "makeIPTablesUtilChains": false, "registerNode": false, "maxPods": 250,
		"address": "127.0.0.1", "port": port, "readOnlyPort": readOnly, "healthzPort": 0,
		"volumePluginDir": filepath.Join(t.TempDir(), "plugins"),
		"authentication":  map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":   map[string]any{"mode": "AlwaysAllow"},
	}})
	events, err := record(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	files := manifests{node}
	return &podBench{options: given, t: t, node: node, events: events, times: podTimes{},
		slipway: &slipwayWatcher{manifests: files},
		kubelet: &kubeletWatcher{manifests: files, program: filepath.Join(node.Repository, "bin/k8s/kubelet"), port: readOnly},
		bare:    &bareWatcher{node: node, socket: node.Socket},
		same:    &bareWatcher{node: node, socket: node.Socket},
	}
}

// freePort is one that nobody listens on now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// with lets one watcher do something while it alone runs pods, and removes them all afterwards.
func (p *podBench) with(ctx context.Context, w podWatcher, do func() error) error {
	idle, err := settle(ctx)
	if err != nil {
		return err
	}
	p.idle = append(p.idle, idle)
	if err := w.start(ctx); err != nil {
		return err
	}
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			w.stop()
		}
	}
	defer stop()
	if r, ok := w.(resident); ok {
		if _, err := p.untilListed(ctx, r, 0); err != nil {
			return err
		}
	}
	// The first pod of all finds caches cold and directories missing.
	if _, _, err := p.added(ctx, w, "warm"); err != nil {
		return fmt.Errorf("%s: %w", w.kind(), err)
	}
	if err := pause(ctx); err != nil {
		return err
	}
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", w.kind(), err)
	}
	stop()
	p.node.Clear()
	return nil
}

// pause lets a watcher come to rest, for a time that is not in step with the kubelet's looks at the runtime, one a
// second.
func pause(ctx context.Context) error {
	return sleep(ctx, 700*time.Millisecond+rand.N(time.Second))
}

// added starts pods and returns how long it took until the last of them ran, and the containers' ids by pod.
func (p *podBench) added(ctx context.Context, w podWatcher, pods ...string) (time.Duration, map[string]string, error) {
	if b, ok := w.(*bareWatcher); ok {
		if err := b.prepare(pods...); err != nil {
			return 0, nil, err
		}
	}
	start := time.Now()
	if err := w.add(ctx, pods...); err != nil {
		return 0, nil, err
	}
	at, ids, err := p.events.running(ctx, start, pods...)
	return at.Sub(start), ids, err
}

// killed kills a container and returns how long it took until the next attempt ran, and how long of it the restart.
func (p *podBench) killed(ctx context.Context, w podWatcher, pod, id string) (whole, restart time.Duration, err error) {
	start := time.Now()
	p.node.KillContainer(id)
	if _, bare := w.(*bareWatcher); bare {
		if _, err := p.events.all(ctx, start, taskExit, id); err != nil {
			return 0, 0, err
		}
	}
	again := time.Now()
	if err := w.restart(ctx, pod); err != nil {
		return 0, 0, err
	}
	at, _, err := p.events.running(ctx, start, pod)
	return at.Sub(start), at.Sub(again), err
}

// changed replaces a pod and returns how long it took until the new container ran, and that container's id.
func (p *podBench) changed(ctx context.Context, w podWatcher, pod string) (time.Duration, string, error) {
	start := time.Now()
	if err := w.change(ctx, pod); err != nil {
		return 0, "", err
	}
	at, ids, err := p.events.running(ctx, start, pod)
	return at.Sub(start), ids[p.node.PodName(pod)], err
}

// removed removes a pod and returns how long it took until its process had ended, and, where that is asked for, until
// container and sandbox were gone.
func (p *podBench) removed(ctx context.Context, w podWatcher, pod, id string, all bool) (ended, gone time.Duration, err error) {
	ids := []string{id}
	for _, c := range p.node.Containers(pod) {
		if c.ID == id {
			ids = append(ids, c.Sandbox)
		}
	}
	start := time.Now()
	if err := w.remove(ctx, pod); err != nil {
		return 0, 0, err
	}
	at, err := p.events.all(ctx, start, taskExit, id)
	if err != nil || !all {
		return at.Sub(start), 0, err
	}
	last, err := p.events.all(ctx, start, containerDelete, ids...)
	return at.Sub(start), last.Sub(start), err
}

// onePod measures what happens to single pods, in alternating rounds.
func (p *podBench) onePod(ctx context.Context) error {
	for round := range p.podRounds {
		for _, w := range []podWatcher{p.slipway, p.kubelet, p.bare, p.same} {
			if err := p.with(ctx, w, func() error { return p.oneRound(ctx, w, round) }); err != nil {
				return err
			}
		}
		p.t.Logf("after round %d of %d:\n%s", round+1, p.podRounds, podTable(p.times))
	}
	return nil
}

func (p *podBench) oneRound(ctx context.Context, w podWatcher, round int) error {
	k := w.kind()
	note := func(f podFigure, d time.Duration) { p.times.add(f, k, d) }
	for i := range p.podRepeats {
		// The kubelet takes 10 s and more to change a pod, and leaves sandboxes to its garbage collection, once a minute: one
		// such wait in a round, and one in all, are enough.
		changes, all := k != kubeletPods || i == 0, k != kubeletPods || round == 0 && i == 0
		steady, edited := fmt.Sprintf("steady-%d-%d", round, i), fmt.Sprintf("edited-%d-%d", round, i)

		took, ids, err := p.added(ctx, w, steady)
		if err := errors.Join(err, pause(ctx)); err != nil {
			return err
		}
		note(podAdded, took)
		took, restart, err := p.killed(ctx, w, steady, ids[p.node.PodName(steady)])
		if err := errors.Join(err, pause(ctx)); err != nil {
			return err
		}
		note(podKilled, took)
		if _, bare := w.(*bareWatcher); bare {
			note(podRestart, restart)
		}
		took, ids, err = p.added(ctx, w, edited)
		if err := errors.Join(err, pause(ctx)); err != nil {
			return err
		}
		note(podAdded, took)
		id := ids[p.node.PodName(edited)]
		if changes {
			took, id, err = p.changed(ctx, w, edited)
			if err := errors.Join(err, pause(ctx)); err != nil {
				return err
			}
			note(podChanged, took)
		}
		ended, gone, err := p.removed(ctx, w, edited, id, all)
		if err := errors.Join(err, pause(ctx)); err != nil {
			return err
		}
		note(podEnded, ended)
		if all {
			note(podGone, gone)
		}
	}
	return nil
}

// fiftyPods starts 50 pods at once, and then restarts the watcher above them.
func (p *podBench) fiftyPods(ctx context.Context) error {
	pods := podNames(50)
	rounds := min(p.podRounds, fiftyRounds)
	for round := range rounds {
		for _, w := range []podWatcher{p.slipway, p.kubelet, p.bare, p.same} {
			err := p.with(ctx, w, func() error {
				took, ids, err := p.added(ctx, w, pods...)
				if err != nil {
					return err
				}
				p.times.add(fiftyAdded, w.kind(), took)
				var adopted time.Duration
				if r, ok := w.(resident); ok {
					if adopted, err = p.adopted(ctx, r, ids); err != nil {
						return err
					}
					p.times.add(fiftyAdopted, w.kind(), adopted)
				}
				p.t.Logf("round %d of %d: %s: 50 pods in %s, adopted after %s", round+1, rounds, w.kind(), duration(took), duration(adopted))
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func podNames(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("many-%03d", i))
	}
	return names
}

// adopted restarts a watcher and returns how long it took until it showed all pods as running. Its containers must be
// the same afterwards.
func (p *podBench) adopted(ctx context.Context, w resident, ids map[string]string) (time.Duration, error) {
	if _, err := p.untilListed(ctx, w, len(ids)+1); err != nil { // and the one that came first
		return 0, err
	}
	if err := pause(ctx); err != nil {
		return 0, err
	}
	w.stop()
	start := time.Now()
	if err := w.start(ctx); err != nil {
		return 0, err
	}
	at, err := p.untilListed(ctx, w, len(ids)+1)
	if err := errors.Join(err, pause(ctx)); err != nil { // the pause is for what it may still do to them
		return 0, err
	}
	now := map[string]string{}
	for _, c := range p.node.Containers("") {
		if ids[c.Pod] != "" && c.State == "running" {
			now[c.Pod] = c.ID
		}
	}
	if !maps.Equal(now, ids) {
		return 0, fmt.Errorf("after its restart other containers run: %d of %d are the same", same(now, ids), len(ids))
	}
	return at.Sub(start), nil
}

func same(a, b map[string]string) (n int) {
	for k, v := range a {
		if b[k] == v {
			n++
		}
	}
	return n
}

// untilListed waits until a watcher says that so many pods run, and returns when it did.
func (p *podBench) untilListed(ctx context.Context, w resident, want int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, podPatience)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		n, err := w.listed(ctx)
		if err == nil && n >= want {
			return time.Now(), nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("waiting until %s shows %d running pods: %d, %v: %w", w.kind(), want, n, err, ctx.Err())
		}
	}
}

// idlePods measures what it costs to watch 200 pods in which nothing happens.
func (p *podBench) idlePods(ctx context.Context) (map[watcherKind]podIdle, error) {
	found := map[watcherKind]podIdle{}
	for _, w := range []resident{p.slipway, p.kubelet} {
		err := p.with(ctx, w, func() error {
			if _, _, err := p.added(ctx, w, podNames(200)...); err != nil {
				return err
			}
			if err := sleep(ctx, podCalm); err != nil {
				return err
			}
			i, err := p.cost(ctx, w.pid())
			found[w.kind()] = i
			p.t.Logf("%s: 200 pods: %s, %s of a core, containerd %s", w.kind(), megabytes(i.Memory.Resident), percent(i.CPU), percent(i.Containerd))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (p *podBench) cost(ctx context.Context, pid int) (i podIdle, err error) {
	var before, after [2]time.Duration
	pids := [2]int{pid, p.node.ContainerdPID()}
	for n, pid := range pids {
		if before[n], err = cpuTimeOf(pid); err != nil {
			return i, err
		}
	}
	start := time.Now()
	if err := sleep(ctx, p.podIdle); err != nil {
		return i, err
	}
	elapsed := float64(time.Since(start))
	for n, pid := range pids {
		if after[n], err = cpuTimeOf(pid); err != nil {
			return i, err
		}
	}
	i.CPU, i.Containerd = float64(after[0]-before[0])/elapsed, float64(after[1]-before[1])/elapsed
	i.Memory, err = memoryOf(pid)
	return i, err
}

// callCosts sends everybody's calls through a proxy, and returns a section with what each call took, and what passed
// between them.
func (p *podBench) callCosts(ctx context.Context) (sections []string, err error) {
	proxied, err := startProxy(ctx, filepath.Join(p.node.Dir, "calls.sock"), p.node.Socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, proxied.stop()) }()
	p.slipway.args = []string{"--cri-socket", "unix://" + proxied.socket}
	p.bare.socket, p.same.socket = proxied.socket, proxied.socket
	defer func() { p.slipway.args, p.bare.socket, p.same.socket = nil, p.node.Socket, p.node.Socket }()
	found := map[watcherKind][]podTrace{}
	for round := range p.podRounds {
		for _, w := range []podWatcher{p.slipway, p.bare, p.same} {
			err := p.with(ctx, w, func() error {
				for i := range p.podRepeats {
					start := time.Now()
					took, _, err := p.added(ctx, w, fmt.Sprintf("called-%d-%d", round, i))
					if err := errors.Join(err, pause(ctx)); err != nil {
						return err
					}
					found[w.kind()] = append(found[w.kind()], podTrace{calls: proxied.since(start), took: took})
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return []string{"### One pod added, call by call\n\n" + callCostTable(found)}, nil
}

// requestCosts makes sandboxes from slipway's own request, and from it without one thing or another that a bare request
// lacks, and returns a section with what each takes.
func (p *podBench) requestCosts(ctx context.Context) (string, error) {
	shared := p.node.Cgroup + "/bare"
	variants := []requestVariant{
		{"as slipway asks", func(*runtimeapi.PodSandboxConfig) {}},
		{"without a seccomp profile", func(c *runtimeapi.PodSandboxConfig) { c.Linux.SecurityContext.Seccomp = nil }},
		{"in a cgroup that all share", func(c *runtimeapi.PodSandboxConfig) { c.Linux.CgroupParent = shared }},
		{"without a resolv.conf of its own", func(c *runtimeapi.PodSandboxConfig) { c.DnsConfig = nil }},
		{"without all three", func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.Seccomp, c.Linux.CgroupParent, c.DnsConfig = nil, shared, nil
		}},
	}
	took := map[string][]time.Duration{}
	err := p.with(ctx, p.same, func() error {
		for i := range p.podRounds * p.podRepeats * 2 {
			for n, v := range variants {
				name := p.node.PodName(fmt.Sprintf("varied-%d-%d", i, n))
				if err := p.same.recorded.prepare(name); err != nil {
					return err
				}
				config, err := p.same.recorded.sandbox(name, 1)
				if err != nil {
					return err
				}
				v.change(config)
				start := time.Now()
				id, err := p.same.client.RunPodSandbox(ctx, config, "")
				if err != nil {
					return err
				}
				took[v.what] = append(took[v.what], time.Since(start))
				if err := errors.Join(p.same.client.StopPodSandbox(ctx, id), p.same.client.RemovePodSandbox(ctx, id)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return "### What is in the request for a sandbox, one at a time\n\n" + requestTable(variants, took), err
}

// requestVariant is a change to slipway's request for a sandbox.
type requestVariant struct {
	what   string
	change func(*runtimeapi.PodSandboxConfig)
}

func requestTable(variants []requestVariant, took map[string][]time.Duration) string {
	var rows [][]string
	for _, v := range variants {
		all := took[v.what]
		if len(all) == 0 {
			continue
		}
		rows = append(rows, []string{v.what, fmt.Sprint(len(all)), milliseconds(median(all)), milliseconds(slices.Min(all))})
	}
	return table([]string{"RunPodSandbox", "how often", "median, ms", "fastest, ms"}, rows)
}

// traces runs everything once more through a proxy, and returns a section for each.
func (p *podBench) traces(ctx context.Context) (sections []string, err error) {
	proxied, err := startProxy(ctx, filepath.Join(p.node.Dir, "p.sock"), p.node.Socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, proxied.stop()) }()
	p.slipway.args, p.bare.socket = []string{"--cri-socket", "unix://" + proxied.socket}, proxied.socket
	defer func() { p.slipway.args, p.bare.socket = nil, p.node.Socket }()
	section := func(title string, body string) { sections = append(sections, "### "+title+"\n\n"+body) }

	err = p.with(ctx, p.slipway, func() error {
		// trace lets something happen and describes it. The pause is for calls that end after their effect.
		trace := func(title, effect string, do func() (time.Duration, error)) error {
			start := time.Now()
			took, err := do()
			if err := errors.Join(err, pause(ctx)); err != nil {
				return err
			}
			section("slipway, one run: "+title, traceTable(podTrace{what: effect, calls: proxied.since(start), took: took}))
			return nil
		}
		var id string
		return errors.Join(
			trace("file added", "the container runs", func() (time.Duration, error) {
				took, ids, err := p.added(ctx, p.slipway, "traced")
				id = ids[p.node.PodName("traced")]
				return took, err
			}),
			trace("container killed", "the next attempt runs", func() (time.Duration, error) {
				took, _, err := p.killed(ctx, p.slipway, "traced", id)
				return took, err
			}),
			trace("file changed", "the new container runs", func() (took time.Duration, err error) {
				took, id, err = p.changed(ctx, p.slipway, "traced")
				return took, err
			}),
			trace("file removed", "nothing is left", func() (time.Duration, error) {
				_, gone, err := p.removed(ctx, p.slipway, "traced", id, true)
				return gone, err
			}),
		)
	})
	if err != nil {
		return nil, err
	}
	for _, w := range []podWatcher{p.slipway, p.bare} {
		err := p.with(ctx, w, func() error {
			start := time.Now()
			took, _, err := p.added(ctx, w, podNames(50)...)
			section(fmt.Sprintf("%s, one run: 50 pods at once in %s", w.kind(), duration(took)), callSums(podTrace{calls: proxied.since(start), took: took}))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return sections, nil
}

func (p *podBench) report(ctx context.Context, began time.Time, idle map[watcherKind]podIdle, traces []string) string {
	_, version, err := containerd.Version(ctx, p.node.Socket)
	if err != nil {
		version = err.Error()
	}
	head := append(hardware(),
		fmt.Sprintf("- slipway at commit %s; containerd %s", commit(ctx, p.node.Repository), version),
		fmt.Sprintf("- command: go test -tags bench -count=1 -timeout 60m -v -run TestPods ./cmd/internal/bench/ -pod-rounds %d -pod-repeats %d -pod-idle %s", p.podRounds, p.podRepeats, p.podIdle),
		fmt.Sprintf("- %s, medians of alternating rounds; before each part the machine was %.0f %% idle (median; at least %.0f %%)",
			began.UTC().Format("2006-01-02 15:04 MST"), 100*median(p.idle), 100*slices.Min(p.idle)))
	sections := []string{strings.Join(head, "\n") + "\n", "### Pods\n\n" + podTable(p.times)}
	if len(idle) == 2 {
		sections = append(sections, "### 200 idle pods, over "+p.podIdle.String()+"\n\n"+podIdleTable(idle[slipwayPods], idle[kubeletPods]))
	}
	return strings.Join(append(sections, traces...), "\n") + "\n"
}
