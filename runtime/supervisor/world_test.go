package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/cri/critest"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/hook"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/probe"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// world is a node in a synctest bubble: a runtime, manifests, and at most one supervisor at a time.
type world struct {
	t       *testing.T
	rt      *critest.Runtime
	client  *cri.Client
	rec     *recorder
	dir     string // of everything on disk
	node    podspec.Node
	cgroups *cgroups
	sources []*feed
	board   *status.Board
	log     strings.Builder
	events  *event.Log
	shown   uint64 // the number of the last event that was shown
	files   *files
	good    *lastgood.Store
	quiet   bool // no hints

	starts   []time.Duration
	observed map[lifecycle.ActionKind][2]int // how often it went well, and how often not

	offset time.Duration // of the wall clock

	maxPulls int
	hints    chan<- Hint
	told     string // the container of the last tellExit

	mu      sync.Mutex
	unready map[string]bool          // containers whose probes fail
	takes   map[string]time.Duration // how long hooks take, by command
	fails   map[string]bool          // hooks that fail, by command
	crash   map[string]int32         // containers that exit at once

	ready  bool
	cancel context.CancelFunc
	done   chan error
	s      *Supervisor
}

const nodeName = "n1"

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		t: t, dir: dir, unready: map[string]bool{}, takes: map[string]time.Duration{}, fails: map[string]bool{}, files: &files{prints: map[string]string{}},
		events: event.NewLog(time.Now), observed: map[lifecycle.ActionKind][2]int{}, crash: map[string]int32{}, cgroups: &cgroups{there: map[string]podspec.CgroupResources{}},
		node: podspec.Node{
			Name: nodeName, HostIPs: []netip.Addr{netip.MustParseAddr("192.0.2.10")},
			KubeletRoot: filepath.Join(dir, "kubelet"), PodLogsDir: filepath.Join(dir, "pods"), ContainerLogsDir: filepath.Join(dir, "containers"),
			CgroupDriver: "cgroupfs", CPUs: 4, MemoryCapacity: 8 << 30,
		},
	}
	w.rt = critest.New(critest.Options{Logs: true, Program: func(c *runtimeapi.ContainerConfig) critest.Outcome {
		w.mu.Lock()
		defer w.mu.Unlock()
		code, exits := w.crash[c.GetMetadata().GetName()]
		return critest.Outcome{Exits: exits, Code: code}
	}})
	good, err := lastgood.OpenStore(filepath.Join(dir, "good"))
	if err != nil {
		t.Fatal(err)
	}
	w.good = good
	w.client = cri.New(w.rt.Conn())
	w.rec = &recorder{Client: w.client, t: t, start: time.Now(), names: map[string]string{}}
	w.sources = []*feed{newFeed()}
	return w
}

// begin starts a supervisor; a former one has ended.
func (w *world) begin() {
	ctx, cancel := context.WithCancel(w.t.Context())
	hints := make(chan Hint, 4096)
	w.hints = hints
	w.rt.OnEvent(func(e critest.Event) {
		if ctx.Err() == nil && !w.quiet {
			hints <- Hint{ID: e.ID, Images: strings.HasPrefix(e.Topic, "/images/")}
		}
	})
	w.board, w.cancel, w.done, w.ready = status.NewBoard(), cancel, make(chan error, 1), false
	var sources []Source
	for _, f := range w.sources {
		sources = append(sources, f)
	}
	w.s = New(Config{
		Node: w.node, Runtime: w.rec, Sources: sources, Hints: hints, Board: w.board, Cgroups: w.cgroups,
		Probes: probe.Deps{Exec: w.exec}, Hooks: hook.Runner{Exec: w.hook}, Events: w.events, Observe: w.observe, Started: w.started, Good: w.good, Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: w.now, Resync: 10 * time.Second, MaxPulls: w.maxPulls,
		Ready: func() { w.ready = true },
	})
	w.s.watcher = w.files
	w.files.changed = w.s.filesChanged
	go func() { w.done <- w.s.Run(ctx) }()
	synctest.Wait()
}

// end stops the supervisor and holds it to its word: it stops nothing.
func (w *world) end() {
	w.t.Helper()
	if w.cancel == nil {
		return
	}
	synctest.Wait()
	before := w.inventory()
	w.cancel()
	if err := <-w.done; err != nil {
		w.t.Errorf("Run: %v", err)
	}
	synctest.Wait()
	if after := w.inventory(); after != before {
		w.t.Errorf("ending the supervisor changed the pods:\n%s\nbecame\n%s", before, after)
	}
	w.cancel = nil
}

func (w *world) exec(_ context.Context, id string, _ []string, _ time.Duration) (string, int, error) {
	st, err := w.client.ContainerStatus(w.t.Context(), id)
	if err != nil {
		return "", 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unready[st.GetMetadata().GetName()] {
		return "not yet", 1, nil
	}
	return "", 0, nil
}

// hook runs the command of a hook.
func (w *world) hook(ctx context.Context, id string, cmd []string, _ time.Duration) (string, int, error) {
	name := w.rec.name(id)
	w.mu.Lock()
	takes, fails := w.takes[cmd[0]], w.fails[cmd[0]]
	w.mu.Unlock()
	pod := podOf(name) + " hook" // hooks are on their own: what happens at the same instant comes before them in a trace
	w.rec.call(pod, fmt.Sprintf("%s %s", cmd[0], name), nil)
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		w.rec.call(pod, fmt.Sprintf("%s %s was cut short", cmd[0], name), nil)
		return "", 0, ctx.Err()
	case <-timer.C:
	}
	if fails {
		return "a secret", 1, nil
	}
	return "", 0, nil
}

// now is the wall clock, without a monotonic reading.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset).Round(0)
}

func (w *world) observe(kind lifecycle.ActionKind, _ time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.observed[kind]
	if err == nil {
		n[0]++
	} else {
		n[1]++
	}
	w.observed[kind] = n
}

func (w *world) started(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starts = append(w.starts, took)
}

// tellExit hints at the end of a container that the runtime still shows as running.
func (w *world) tellExit(container string, code int32) error {
	for _, c := range list(w.t.Context(), w.client, "", w.node.Instance).containers {
		if c.GetMetadata().GetName() == container && c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			w.told = c.GetId()
			w.hints <- Hint{ID: c.GetId(), Exit: &Exit{Code: code, At: time.Now()}}
			return nil
		}
	}
	return errors.New("it does not run")
}

// inventory is every sandbox and container with its id and state.
func (w *world) inventory() string {
	var lines []string
	all := list(context.Background(), w.client, "", w.node.Instance)
	if all.err != nil {
		w.t.Fatal(all.err)
	}
	for _, sb := range all.sandboxes {
		lines = append(lines, fmt.Sprintf("%s %s %s", w.rec.name(sb.GetId()), sb.GetId()[:8], sb.GetState()))
	}
	for _, c := range all.containers {
		lines = append(lines, fmt.Sprintf("%s %s %s", w.rec.name(c.GetId()), c.GetId()[:8], c.GetState()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// leftovers is what is on disk and in cgroups for pods.
func (w *world) leftovers() []string {
	out := w.cgroups.list()
	for _, dir := range []string{filepath.Join(w.node.KubeletRoot, "pods"), w.node.PodLogsDir, w.node.ContainerLogsDir} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}
