//go:build bench

package bench

import (
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// options are the flags of the benchmark, behind go test's own: go test -tags bench -v ./cmd/internal/bench/ -runs 3.
type options struct {
	runs    int
	lock    string
	slipway string
	out     string
	// For TestPods:
	podRounds  int
	podRepeats int
	podIdle    time.Duration
	podsOnly   string
}

func (o *options) register(flags *flag.FlagSet) {
	flags.IntVar(&o.runs, "runs", 5, "measure each thing this `OFTEN`")
	flags.StringVar(&o.lock, "lock", filepath.Join(os.TempDir(), "slipway-e2e.lock"), "hold this lock `FILE` while a control plane runs")
	flags.StringVar(&o.slipway, "slipway", "", "measure this `PROGRAM` (default bin/slipway of the checkout)")
	flags.StringVar(&o.out, "out", "", "write the tables to this `FILE` too")
	flags.IntVar(&o.podRounds, "pod-rounds", 3, "measure pods in this `MANY` alternating rounds")
	flags.IntVar(&o.podRepeats, "pod-repeats", 4, "measure each thing of a single pod this `OFTEN` in a round")
	flags.DurationVar(&o.podIdle, "pod-idle", time.Minute, "watch 200 idle pods for this `LONG`")
	flags.StringVar(&o.podsOnly, "pods-only", "", "of what is measured of pods, only these `PARTS`: one,fifty,idle,calls,requests,trace; for a quick look")
}

var given options // flags of a test binary cannot be anywhere else

func TestMain(m *testing.M) {
	signal.Ignore(syscall.SIGPIPE) // whoever reads the output may end before the clean-up
	given.register(flag.CommandLine)
	flag.Parse()
	if given.out != "" {
		os.Remove(given.out) //nolint:errcheck // what an earlier run left, if any
	}
	os.Exit(m.Run())
}

// bench is one run of the benchmark.
type bench struct {
	options
	repository string
	dir        string // all that the benchmark makes for itself

	engine     *engine
	kubernetes string              // version, as kubeadm says it
	address    string              // of this node
	byHandArgv map[string][]string // command lines of the components without containers
	idle       []float64           // how idle the machine was before each run
}

func (b *bench) program(name string) string { return filepath.Join(b.repository, "bin/k8s", name) }
func (b *bench) archives() string           { return filepath.Join(b.repository, "bin/images") }

// untilDeadline is the test's context, which ends in time for the clean-up, and on the signals that would end the process
// before it.
func untilDeadline(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	end, ok := t.Deadline()
	if !ok {
		return ctx, stop
	}
	limited, cancel := context.WithDeadline(ctx, end.Add(-2*time.Minute))
	return limited, func() { cancel(); stop() }
}

// TestBench measures everything and prints the tables. It fails when something cannot be measured, never for a figure:
// the tables say how each figure stands to its target.
func TestBench(t *testing.T) {
	ctx, stop := untilDeadline(t)
	defer stop()
	b := prepare(ctx, t)
	began := time.Now()

	contenders := b.contenders()
	outcomes, err := b.alternate(ctx, t, contenders)
	if err != nil {
		t.Fatal(err)
	}
	renders, err := b.renders(ctx, t)
	if err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(b.dir, "trace.json")
	traced := b.slipwayInit("the supervisor", "--cri-socket", "unix://"+b.engine.socket, "--trace", trace)
	supervisor, err := b.resident(ctx, t, traced)
	if err != nil {
		t.Fatal(err)
	}
	kubelet, err := b.resident(ctx, t, contenders[kubeadmDefault])
	if err != nil {
		t.Fatal(err)
	}
	size, err := strippedSize(b.slipway)
	if err != nil {
		t.Fatal(err)
	}
	timeline, err := slipwayTimeline(trace)
	if err != nil {
		t.Fatal(err)
	}
	r := report{began: began, machine: b.machine(ctx), idle: b.idle, runs: b.runs, contenders: contenders, outcomes: outcomes,
		renders: renders, supervisor: supervisor, kubelet: kubelet, binary: size, timeline: timeline}
	b.publish(t, r.String())
}

// publish prints tables, and adds them to the file that was asked for.
func (o options) publish(t *testing.T, text string) {
	t.Helper()
	fmt.Print("\n", text)
	if o.out == "" {
		return
	}
	f, err := os.OpenFile(o.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

// prepare refuses what cannot be measured, and starts what is there during all measurements.
func prepare(ctx context.Context, t *testing.T) *bench {
	t.Helper()
	b := &bench{options: given}
	var err error
	if b.repository, err = filepath.Abs("../../.."); err != nil {
		t.Fatal(err)
	}
	if b.slipway == "" {
		b.slipway = filepath.Join(b.repository, "bin/slipway")
	}
	if os.Geteuid() != 0 {
		t.Fatal("the benchmark must run as root: it starts real control planes")
	}
	if b.runs < 1 {
		t.Fatalf("-runs %d: measure at least once", b.runs)
	}
	needed := []string{b.slipway, b.program("kubeadm"), b.program("kubelet"), filepath.Join(b.archives(), "pause.tar")}
	for _, component := range controlPlane {
		needed = append(needed, b.program(component))
	}
	for _, path := range needed {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v; run make build programs", err)
		}
	}
	if b.dir, err = os.MkdirTemp("", "bench"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(b.dir); err != nil {
			t.Error(err)
		}
	})
	if err := b.render(ctx); err != nil {
		t.Fatal(err)
	}
	version, _, err := command(ctx, nil, b.program("kubeadm"), "version", "-o", "short")
	if err != nil || len(version) != 1 {
		t.Fatalf("asking kubeadm for its version: %v: %v", version, err)
	}
	b.kubernetes = version[0].Text
	if b.engine, err = startEngine(ctx, b.dir, b.archives()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.engine.close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	return b
}

// The places in contenders, which the report compares.
const (
	kubeadmDefault = iota
	kubeadmECDSA
	slipwayShared
	slipwayOwn
	floorAtOnce
	floorHeld
)

func (b *bench) contenders() []contender {
	return []contender{
		kubeadmDefault: b.kubeadmInit("kubeadm init, kubelet", "RSA-2048"),
		kubeadmECDSA:   b.kubeadmInit("kubeadm init, kubelet, ECDSA keys as slipway's", "ECDSA-P256"),
		slipwayShared:  b.slipwayInit("slipway init, same containerd", "--cri-socket", "unix://"+b.engine.socket),
		slipwayOwn:     b.slipwayInit("slipway init, starts its own containerd, imports the images from archives", "--image-archives", b.archives()),
		floorAtOnce:    b.byHand("by hand: four processes at once", false),
		floorHeld:      b.byHand("by hand: two processes, the other two at /readyz", true),
	}
}

// alternate runs each contender once per round and returns the outcomes of each.
func (b *bench) alternate(ctx context.Context, t *testing.T, contenders []contender) ([][]outcome, error) {
	outcomes := make([][]outcome, len(contenders))
	for round := range b.runs {
		for i, c := range contenders {
			o, err := b.once(ctx, t, c, nil)
			if err != nil {
				return nil, err
			}
			outcomes[i] = append(outcomes[i], o)
			t.Logf("round %d of %d: %s: %s, ready %s, all healthy %s, at work %s", round+1, b.runs, c.name,
				duration(o.Whole), duration(o.Arrived.ready()), duration(o.Arrived.all()), duration(o.Arrived.atWork()))
		}
	}
	return outcomes, nil
}

// once brings a control plane up on a quiet machine, does what is to be done while it runs, and takes it away again,
// whatever happened.
func (b *bench) once(ctx context.Context, t *testing.T, c contender, meanwhile func() error) (o outcome, err error) {
	held, err := claimMachine(ctx, b.lock)
	if err != nil {
		return outcome{}, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		stopErr := c.stop(ctx)
		leftovers, releaseErr := held.release()
		if c.resets && stopErr == nil && len(leftovers) > 0 {
			t.Logf("%s: its reset left %s", c.name, strings.Join(leftovers, ", "))
		}
		if err = errors.Join(err, stopErr, releaseErr); err != nil {
			err = fmt.Errorf("%s: %w", c.name, err)
		}
	}()
	idle, err := settle(ctx)
	if err != nil {
		return outcome{}, err
	}
	b.idle = append(b.idle, idle)
	if o, err = c.start(ctx); err == nil && meanwhile != nil {
		err = meanwhile()
	}
	return o, err
}

const (
	// calm is how long after the last component's health the idle time begins: start-up work is over by then.
	calm = 15 * time.Second
	// idleTime is three periods of a liveness probe.
	idleTime = 30 * time.Second
)

// resident measures the watcher of a contender with four healthy pods that nobody uses.
func (b *bench) resident(ctx context.Context, t *testing.T, c contender) (watcher, error) {
	var found watcher
	_, err := b.once(ctx, t, c, func() error {
		pid, err := c.watcher()
		if err != nil {
			return err
		}
		if err := sleep(ctx, calm); err != nil {
			return err
		}
		before, err := cpuTimeOf(pid)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := sleep(ctx, idleTime); err != nil {
			return err
		}
		after, err := cpuTimeOf(pid)
		if err != nil {
			return err
		}
		found.CPU = float64(after-before) / float64(time.Since(start))
		found.Memory, err = memoryOf(pid)
		return err
	})
	if err == nil {
		t.Logf("%s: %s resident, %.2f %% of a core", c.name, megabytes(found.Memory.Resident), 100*found.CPU)
	}
	return found, err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// rendered is how long dry runs took.
type rendered struct{ Slipway, Kubeadm []time.Duration }

// renders measures dry runs, alternating, after one of each that nobody counts: it brings the programs into memory.
func (b *bench) renders(ctx context.Context, t *testing.T) (r rendered, err error) {
	held, err := claimMachine(ctx, b.lock)
	if err != nil {
		return r, err
	}
	defer func() {
		_, e := held.release()
		err = errors.Join(err, e)
	}()
	config, err := b.kubeadmConfigFile("RSA-2048")
	if err != nil {
		return r, err
	}
	scratch := filepath.Join(b.dir, "dry-run")
	for i := range b.runs + 1 {
		_, slipway, err := command(ctx, nil, b.slipway, "init", "--dry-run")
		if err != nil {
			return r, err
		}
		if err := os.Mkdir(scratch, 0o700); err != nil {
			return r, err
		}
		_, kubeadm, err := command(ctx, append(b.kubeadmEnv(), "KUBEADM_INIT_DRYRUN_DIR="+scratch), b.kubeadmArgv(config, "--dry-run")...)
		if err := errors.Join(err, os.RemoveAll(scratch)); err != nil {
			return r, err
		}
		if i > 0 {
			r.Slipway, r.Kubeadm = append(r.Slipway, slipway), append(r.Kubeadm, kubeadm)
		}
	}
	t.Logf("dry run: slipway %s, kubeadm %s", duration(median(r.Slipway)), duration(median(r.Kubeadm)))
	return r, nil
}

// strippedSize returns the size of a program in bytes, and refuses one with symbols or debug information.
func strippedSize(path string) (int64, error) {
	program, err := elf.Open(path)
	if err != nil {
		return 0, fmt.Errorf("reading %q: %w", path, err)
	}
	defer program.Close()
	for _, name := range []string{".symtab", ".debug_info", ".zdebug_info"} {
		if program.Section(name) != nil {
			return 0, fmt.Errorf("%s is not stripped: it has a section %s; run make build", path, name)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("reading the size of %q: %w", path, err)
	}
	return info.Size(), nil
}
