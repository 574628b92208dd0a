package supervisor

import (
	"cmp"
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
	"github.com/slipway-k8s/slipway/runtime/manifest"
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

// files stands for the host's watched files.
type files struct {
	mu      sync.Mutex
	prints  map[string]string // by full name
	changed func(string)
}

func (f *files) Watch(name string, paths []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(paths) == 0 {
		delete(f.prints, name)
	} else if f.prints[name] == "" {
		f.prints[name] = "first"
	}
}

func (f *files) Unwatch(name string) { f.Watch(name, nil) }

func (f *files) Fingerprint(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.prints[name], nil
}

func (f *files) set(name, print string) {
	f.mu.Lock()
	f.prints[name] = print
	f.mu.Unlock()
	f.changed(name)
}

func (f *files) Close() {}

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

// recorder passes calls on and keeps those with an effect, in words.
type recorder struct {
	*cri.Client
	t     *testing.T
	start time.Time

	onCall func() // may be nil

	mu    sync.Mutex
	lines []line
	names map[string]string // by id
}

type line struct {
	at   time.Duration
	pod  string
	text string
}

// name is a sandbox or container in words: "etcd v1 #0", "etcd/etcd v1 #0".
func (r *recorder) name(id string) string {
	r.mu.Lock()
	known := r.names[id]
	r.mu.Unlock()
	if known != "" {
		return known
	}
	all := list(r.t.Context(), r.Client, "", "") // its maker did not hear of it, or it is not the supervisor's
	for _, sb := range all.sandboxes {
		if sb.GetId() == id {
			return sandboxName(sb.GetMetadata(), sb.GetLabels())
		}
	}
	for _, c := range all.containers {
		if c.GetId() == id {
			return containerName(r.name(c.GetPodSandboxId()), c.GetMetadata())
		}
	}
	return "unknown " + id
}

func sandboxName(m *runtimeapi.PodSandboxMetadata, labels map[string]string) string {
	return fmt.Sprintf("%s %s #%d", strings.TrimSuffix(m.GetName(), "-"+nodeName), cmp.Or(labels["version"], "FOREIGN"), m.GetAttempt())
}

func containerName(sandbox string, m *runtimeapi.ContainerMetadata) string {
	pod, version, _ := strings.Cut(sandbox, " ")
	version, _, _ = strings.Cut(version, " ")
	return fmt.Sprintf("%s/%s %s #%d", pod, m.GetName(), version, m.GetAttempt())
}

func (r *recorder) learn(id, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[id] = name
}

func (r *recorder) call(pod, text string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		text += ": " + err.Error()
	}
	r.lines = append(r.lines, line{time.Since(r.start), pod, text})
	if r.onCall != nil {
		r.onCall()
	}
}

// take returns the lines since it was last called. What several pods did at one instant is in the order of their names,
// and what one did to several containers in the order of theirs: they may happen at the same time.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.lines, func(a, b line) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.pod, b.pod)) })
	for i := 0; i < len(r.lines); {
		n := i + 1
		for n < len(r.lines) && r.lines[n].at == r.lines[i].at && r.lines[n].kind() == r.lines[i].kind() {
			n++
		}
		slices.SortStableFunc(r.lines[i:n], func(a, b line) int { return cmp.Compare(a.subject(), b.subject()) })
		i = n
	}
	var out strings.Builder
	for _, l := range r.lines {
		fmt.Fprintf(&out, "%8s  %s\n", l.at.Round(time.Millisecond), l.text)
	}
	r.lines = nil
	return out.String()
}

// forget drops what was recorded.
func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines, r.names = nil, map[string]string{}
}

// kind is what was done and to which pod. Creating and starting are one thing: each container's own is in order.
func (l line) kind() string {
	pod := strings.TrimSuffix(l.pod, " hook")
	verb, _, _ := strings.Cut(l.text, pod)
	if verb == "start " {
		verb = "create "
	}
	return verb + pod
}

// subject is to what it was done.
func (l line) subject() string {
	_, subject, _ := strings.Cut(l.text, strings.TrimSuffix(l.pod, " hook"))
	return subject
}

func podOf(name string) string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '/' })[0]
}

// RunPodSandbox also holds the supervisor to its first rule: the old one is gone before the new one is made.
func (r *recorder) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	name := sandboxName(config.GetMetadata(), config.GetLabels())
	pod := config.GetMetadata().GetNamespace() + "/" + config.GetMetadata().GetName()
	for _, c := range list(r.t.Context(), r.Client, pod, "").containers {
		if c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			r.t.Errorf("sandbox %s is made while %s runs", name, r.name(c.GetId()))
		}
	}
	id, err := r.Client.RunPodSandbox(ctx, config, handler)
	if err == nil {
		r.learn(id, name)
	}
	r.call(podOf(name), "run sandbox "+name, err)
	return id, err
}

func (r *recorder) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	id, err := r.Client.CreateContainer(ctx, sandboxID, config, sandbox)
	name := containerName(r.name(sandboxID), config.GetMetadata())
	if err == nil {
		r.learn(id, name)
	}
	r.call(podOf(name), "create "+name, err)
	return id, err
}

// on records a call about one sandbox or container, which may be gone afterwards.
func (r *recorder) on(verb, id string, call func() error) error {
	name := r.name(id)
	err := call()
	r.call(podOf(name), verb+" "+name, err)
	return err
}

func (r *recorder) StartContainer(ctx context.Context, id string) error {
	return r.on("start", id, func() error { return r.Client.StartContainer(ctx, id) })
}

// StopContainer is two lines if it takes time.
func (r *recorder) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	name, began := r.name(id), time.Now()
	r.call(podOf(name), fmt.Sprintf("stop %s, grace %s", name, grace.Round(time.Millisecond)), nil)
	err := r.Client.StopContainer(ctx, id, grace)
	if err != nil || time.Since(began) > 0 {
		r.call(podOf(name), "stopped "+name, err)
	}
	return err
}

func (r *recorder) RemoveContainer(ctx context.Context, id string) error {
	return r.on("remove", id, func() error { return r.Client.RemoveContainer(ctx, id) })
}

func (r *recorder) StopPodSandbox(ctx context.Context, id string) error {
	return r.on("stop sandbox", id, func() error { return r.Client.StopPodSandbox(ctx, id) })
}

func (r *recorder) RemovePodSandbox(ctx context.Context, id string) error {
	return r.on("remove sandbox", id, func() error { return r.Client.RemovePodSandbox(ctx, id) })
}

func (r *recorder) PullImage(ctx context.Context, ref string, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	r.call(ref, "pull "+ref, nil)
	id, err := r.Client.PullImage(ctx, ref, sandbox)
	if err != nil {
		r.call(ref, "pull of "+ref+" failed", nil)
	}
	return id, err
}

// feed is a source of manifests that the test holds in its hand.
type feed struct {
	next chan manifest.Snapshot
	last *manifest.Snapshot // delivered first to the next supervisor too
}

func newFeed() *feed { return &feed{next: make(chan manifest.Snapshot)} }

func (f *feed) Run(ctx context.Context, deliver func(manifest.Snapshot)) error {
	if f.last != nil {
		deliver(*f.last)
	}
	for {
		select {
		case snap := <-f.next:
			deliver(snap)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cgroups stands for a host's.
type cgroups struct {
	mu    sync.Mutex
	there map[string]podspec.CgroupResources
	busy  error
}

func (c *cgroups) Ensure(path string, r podspec.CgroupResources) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.there[path] = r
	return nil
}

func (c *cgroups) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.there[path]; ok && c.busy != nil {
		return c.busy
	}
	delete(c.there, path)
	return nil
}

// list is the pods' cgroups, without those of the classes.
func (c *cgroups) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for path := range c.there {
		if strings.Contains(path, "/pod") {
			out = append(out, path)
		}
	}
	return out
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
