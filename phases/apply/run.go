package apply

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// steady is how long what was changed must stay ready: until then the supervisor would return to the version before by
// itself, and the files would say something else than what runs.
const steady = 10 * time.Second

// settled is how long all must be ready once a change was taken back: the readiness of a component that has lost etcd or
// the API server for a moment fails three probes, a second apart, later.
const settled = 4 * time.Second

// takingBack is the name of the part that undoes the others.
const takingBack = "taking back"

// Apply does the steps of a plan, or takes them back.
//
//	       ┌─ step ─ step ─ … ─ steady ─┐
//	record │                            ├─ record removed
//	       └─ one fails: everything back┘
type Apply struct {
	Env     *phases.Env // Files is the disk itself
	Timeout time.Duration
	// Phase runs one of init's phases that act on what is written: "supervisor/containerd", "supervisor/supervise".
	Phase func(ctx context.Context, name string) error
	// Restart restarts the containers of a component, and returns when it is ready again.
	Restart func(ctx context.Context, component, why string, deadline time.Duration) error
}

// RolledBack says that a change was taken back, and why. The cluster is as it was before.
type RolledBack struct {
	Reason error
	Files  int      // put back
	Ready  []string // components
	Took   time.Duration
}

func (e *RolledBack) Unwrap() error { return e.Reason }

func (e *RolledBack) Error() string {
	files := "1 file was"
	if e.Files != 1 {
		files = fmt.Sprintf("%d files were", e.Files)
	}
	ready := strings.Join(e.Ready, ", ")
	if ready == "" {
		ready = "none, as before"
	}
	return fmt.Sprintf("%s\n  all is as it was before: %s put back (%.1f s); ready are: %s", why(e.Reason), files, e.Took.Seconds(), ready)
}

// why is a reason without what to do next: that is for who tells of the outcome to say.
func why(err error) string {
	if failed := (*host.NotReady)(nil); errors.As(err, &failed) {
		return failed.Why()
	}
	return err.Error()
}

// Forward does the steps. One that fails takes all of them back, which is a *RolledBack once it is done. The end of ctx
// leaves the record, for the next run. r names what was ready before, and what an earlier run has done.
func (a *Apply) Forward(ctx context.Context, r *Record, steps []Step) error {
	for _, s := range steps {
		r.add(s.Changes)
	}
	if err := a.save(r); err != nil {
		return err
	}
	for _, s := range steps {
		err := error(nil)
		if s.Kind == Runtime || s.Kind == Supervisor { // phases of init, which tell of themselves
			err = a.step(ctx, r, s)
		} else {
			err = a.timed(s.name(), func() error { return a.step(ctx, r, s) })
		}
		if err != nil {
			return a.failed(ctx, r, err)
		}
	}
	if err := a.timed("steady", func() error { return a.wait(ctx, "steady", r.watched(), steady) }); err != nil {
		return a.failed(ctx, r, err)
	}
	return a.end()
}

func (a *Apply) failed(ctx context.Context, r *Record, err error) error {
	if ctx.Err() != nil {
		return err
	}
	r.Reason = why(err)
	return a.Back(ctx, r, err)
}

// Back puts everything back as the record has it, and waits for what was ready before. It is a *RolledBack when that is
// done, and any other error when it is not; the record is there then still.
func (a *Apply) Back(ctx context.Context, r *Record, reason error) error {
	began := a.Env.Now()
	var put int
	err := a.timed(takingBack, func() error {
		if err := a.save(r); err != nil {
			return err
		}
		var err error
		put, err = a.back(ctx, r)
		return err
	})
	if err == nil {
		err = a.end()
	}
	if err != nil {
		return fmt.Errorf("%s\n  taking it back is not done: %s", why(reason), indent(why(err)))
	}
	return &RolledBack{Reason: reason, Files: put, Ready: r.Ready, Took: a.Env.Now().Sub(began)}
}

func (a *Apply) back(ctx context.Context, r *Record) (put int, err error) {
	changes, err := r.back(a.Env.Files)
	if err != nil {
		return 0, err
	}
	manifests, files := a.parted(changes)
	for _, c := range files {
		if err := a.write(c); err != nil {
			return 0, err
		}
	}
	paths := a.Env.Config.Paths
	if r.holds(paths.ContainerdConfig, filepath.Join(paths.Units, paths.ContainerdUnit)) {
		if err := a.Phase(ctx, "supervisor/containerd"); err != nil {
			return 0, err
		}
	}
	if r.holds(paths.KubeletConfig, filepath.Join(paths.Units, paths.SupervisorUnit)) {
		if err := a.Phase(ctx, "supervisor/supervise"); err != nil {
			return 0, err
		}
	}
	for _, name := range plane.Components() {
		c, changed := manifests[name]
		again := !changed && slices.Contains(r.Begun, name) && !r.holds(a.manifest(name))
		switch {
		case changed:
			if err := a.write(c); err != nil {
				return 0, err
			}
		case !again && !slices.Contains(r.Begun, name):
			continue
		}
		if !slices.Contains(r.Ready, name) {
			continue // it did not run before either
		}
		if again {
			err = a.Restart(ctx, name, "a change is taken back", a.Timeout)
		} else {
			err = a.wait(ctx, takingBack, []string{name}, 0)
		}
		if err != nil {
			return 0, err
		}
	}
	return len(changes), a.wait(ctx, takingBack, r.Ready, settled)
}

// step does one step.
func (a *Apply) step(ctx context.Context, r *Record, s Step) error {
	if s.Pod != "" && !slices.Contains(r.Begun, s.Pod) {
		r.Begun = append(r.Begun, s.Pod)
		if err := a.save(r); err != nil {
			return err
		}
	}
	for _, c := range s.Changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.write(c); err != nil {
			return err
		}
	}
	switch s.Kind {
	case Runtime:
		return a.Phase(ctx, "supervisor/containerd")
	case Supervisor:
		return a.Phase(ctx, "supervisor/supervise")
	case NewVersion:
		return a.wait(ctx, s.Pod, []string{s.Pod}, 0)
	case Restart:
		return a.Restart(ctx, s.Pod, "changed: "+strings.Join(s.Because, ", "), a.Timeout)
	}
	return nil
}

// write makes one change, for which the disk may be right already.
func (a *Apply) write(c artifact.Change) error {
	var err error
	if c.Op == artifact.Remove {
		err = a.Env.Files.Remove(c.Before.Path)
		if c.Before.Mode.IsDir() {
			err = nil // something has come into it, and is not ours to remove
		}
	} else {
		err = a.Env.Files.Put(*c.After)
	}
	if err == nil {
		a.Env.Report(phases.Event{Kind: phases.Changed, Change: c, Time: a.Env.Now()})
	}
	return err
}

func (a *Apply) wait(ctx context.Context, part string, pods []string, steady time.Duration) error {
	if len(pods) == 0 {
		return nil
	}
	progress := func(p host.Progress) { // that they are ready is told by the part's end
		a.Env.Report(phases.Event{Kind: phases.Progress, Phase: part, Text: p.Text, Done: p.Done, Total: p.Total, Unit: p.Unit, Time: a.Env.Now()})
	}
	w := host.Wait{
		Namespace: "kube-system", Pods: pods, Needs: needs(pods), NodeName: a.Env.Config.NodeName, Deadline: a.Timeout + steady, Steady: steady,
	}
	return a.Env.Host.WaitReady(ctx, w, progress)
}

// needs says which of the pods another cannot run without.
func needs(pods []string) map[string][]string {
	out := map[string][]string{}
	for _, need := range [][2]string{{"kube-apiserver", "etcd"}, {"kube-controller-manager", "kube-apiserver"}, {"kube-scheduler", "kube-apiserver"}} {
		if slices.Contains(pods, need[0]) && slices.Contains(pods, need[1]) {
			out[need[0]] = []string{need[1]}
		}
	}
	return out
}

// timed reports a part as a phase of its own.
func (a *Apply) timed(name string, do func() error) error {
	start := a.Env.Now()
	a.Env.Report(phases.Event{Kind: phases.PhaseStarted, Phase: name, Time: start})
	err := do()
	e := phases.Event{Kind: phases.PhaseDone, Phase: name, Time: a.Env.Now(), Err: err}
	if e.Elapsed = e.Time.Sub(start); err != nil {
		e.Kind = phases.PhaseFailed
	}
	a.Env.Report(e)
	return err
}

func (a *Apply) save(r *Record) error {
	return r.save(a.Env.Files, a.Env.Config.Paths.ApplyRecord())
}

func (a *Apply) end() error { return a.Env.Files.Remove(a.Env.Config.Paths.ApplyRecord()) }

func (a *Apply) manifest(name string) string {
	return filepath.Join(a.Env.Config.Paths.Manifests, name+".yaml")
}

func (a *Apply) parted(changes []artifact.Change) (manifests map[string]artifact.Change, files []artifact.Change) {
	manifests = map[string]artifact.Change{}
	for _, c := range changes {
		i := slices.IndexFunc(plane.Components(), func(name string) bool { return a.manifest(name) == c.File().Path })
		if i < 0 {
			files = append(files, c)
		} else {
			manifests[plane.Components()[i]] = c
		}
	}
	return manifests, files
}

// holds tells whether the apply changes one of the files.
func (r *Record) holds(paths ...string) bool {
	return slices.ContainsFunc(r.Files, func(w Was) bool { return slices.Contains(paths, w.Path) })
}

// watched are the components that must be ready at the end: those that were, and those that were changed.
func (r *Record) watched() []string {
	return slices.DeleteFunc(plane.Components(), func(name string) bool {
		return !slices.Contains(r.Ready, name) && !slices.Contains(r.Begun, name)
	})
}

// name is what a step is called while it runs.
func (s Step) name() string {
	switch s.Kind {
	case Write:
		return "files"
	case Runtime:
		return "containerd"
	case Supervisor:
		return "supervisor"
	}
	return s.Pod
}

func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }
