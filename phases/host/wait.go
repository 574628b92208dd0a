package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func (l *Live) WaitReady(ctx context.Context, w Wait, report func(Progress)) error {
	var err error
	if w.Versions, err = l.versions(w); err != nil {
		return err
	}
	return AwaitPods(ctx, l.paths.SupervisorSocket, w, report)
}

// AwaitPods waits as Live.WaitReady does, by the supervisor at a socket, and takes the versions as they are given.
func AwaitPods(ctx context.Context, socket string, w Wait, report func(Progress)) error {
	client := newSupervisorClient(socket)
	defer client.close()
	return waitReady(ctx, w, client, report)
}

// versions completes Wait.Versions from the manifests on disk. A pod without a manifest gets none.
func (l *Live) versions(w Wait) (map[string]string, error) {
	versions := map[string]string{}
	maps.Copy(versions, w.Versions)
	for _, name := range w.Pods {
		if versions[name] != "" || l.version == nil {
			continue
		}
		path := filepath.Join(l.paths.Manifests, name+".yaml")
		f, err := l.files.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			versions[name], err = l.version(f.Data, w.NodeName)
		}
		if err != nil {
			return nil, fmt.Errorf("looking at the manifest %q of what is waited for: %w", path, err)
		}
	}
	return versions, nil
}

// podSource is where the state of pods comes from: the supervisor, or a script.
type podSource interface {
	watch(ctx context.Context, each func([]corev1.Pod) bool) error
	logs(ctx context.Context, pod, container string, tail int) ([]string, error)
}

const (
	// silence is how long the supervisor may be away before the wait ends: long enough for a restart by systemd.
	silence = 20 * time.Second
	// reconnect is the pause before a dropped watch is taken up again.
	reconnect = 50 * time.Millisecond
	// causeTail is how far back the cause of an exit is looked for: etcd prints its 200 lines of usage after the error.
	causeTail = 400
	// newsTakes is how long the supervisor may take to see a manifest that was just written: until then it may show what
	// was wrong with the one before.
	newsTakes = 2 * time.Second
)

// waitReady watches until every pod is ready. It ends early on a crash loop that cannot heal.
func waitReady(ctx context.Context, w Wait, source podSource, report func(Progress)) error {
	ctx, cancel := context.WithTimeout(ctx, w.Deadline)
	defer cancel()
	v := newVigil(w, time.Now())
	lastSeen := time.Now()
	waiting := ""
	for {
		var hopeless error
		done := false
		watching, again := context.WithCancel(ctx)
		err := source.watch(watching, func(pods []corev1.Pod) bool {
			lastSeen = time.Now()
			for _, name := range v.see(pods) {
				report(Progress{Text: fmt.Sprintf("%s ready (%s)", name, seconds(time.Since(v.began)))})
			}
			if text := v.waitingFor(); text != waiting && text != "" {
				waiting = text
				report(Progress{Text: text, Done: int64(v.countReady()), Total: int64(len(w.Pods)), Unit: "pods"})
			}
			settled := time.Since(v.began) >= newsTakes
			if hopeless = v.hopeless(ctx, source); hopeless == nil {
				var old bool
				if hopeless, old = v.refused(); old && !settled {
					hopeless = nil
					time.AfterFunc(newsTakes-time.Since(v.began), again) // to look once more, though nothing changes
				}
			}
			if done = v.steady(time.Now()); !done && v.allReady() {
				time.AfterFunc(time.Until(v.readySince.Add(w.Steady)), again)
			}
			return hopeless == nil && !done
		})
		again()
		switch {
		case hopeless != nil:
			return hopeless
		case done:
			return nil
		case ctx.Err() != nil:
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return v.timedOut(context.WithoutCancel(ctx), source)
			}
			return fmt.Errorf("waiting for the control plane: %w", ctx.Err())
		case time.Since(lastSeen) > silence:
			return fmt.Errorf("the supervisor has not answered for %s: %w; next: slipway status", silence, err)
		}
		pause := time.NewTimer(reconnect)
		select {
		case <-ctx.Done():
			pause.Stop()
		case <-pause.C:
		}
	}
}

// hopeless returns an error for the first pod whose crash loop cannot heal, or nil.
func (v *vigil) hopeless(ctx context.Context, source podSource) error {
	for _, s := range v.suspects() {
		lines, cause, known := evidence(ctx, source, v.fullName(s.pod), s.pod, s.container)
		if !s.cannotHeal(cause, known) {
			continue
		}
		reason := fmt.Sprintf("%s cannot start: it exited with code %d, %d times", s.pod, s.code, s.exits)
		return notReady(s.pod, reason, lines, cause, known)
	}
	return nil
}

// refused returns an error for the first pod whose manifest the supervisor has given up or does not take, or nil. The
// error may be old: about the manifest that was there before.
func (v *vigil) refused() (err error, old bool) {
	for _, name := range v.want.Pods {
		pod := v.pods[name]
		switch {
		case pod == nil:
		case v.rejected(name, pod) && v.want.Verdict && !isReady(pod):
		case v.rejected(name, pod):
			return v.givenUp(name, pod), v.want.Versions[name] == ""
		case !v.current(name, pod) && pod.Annotations[annotationProblem] != "":
			return &NotReady{
				Pod: name, Reason: fmt.Sprintf("the manifest of %s is not taken: %s\n  the version before it runs on", name, pod.Annotations[annotationProblem]),
				Next: "mend its configuration and run this again; slipway status " + name,
			}, true
		}
	}
	return nil, false
}

// givenUp says why the supervisor has given up a pod's manifest.
func (v *vigil) givenUp(name string, pod *corev1.Pod) error {
	e := &NotReady{
		Pod: name, GivenUp: true, Recovered: isReady(pod),
		Reason: fmt.Sprintf("the new version of %s was given up: %s\n  the last version that was ready runs again", name, pod.Annotations[annotationRejected]),
		Next:   "mend its configuration and run this again; slipway status " + name,
	}
	if log := strings.TrimSpace(pod.Annotations[annotationRejectedLog]); log != "" {
		lines := strings.Split(log, "\n")
		if cause, known := LikelyCause(name, lines); known {
			e.Cause = cause.Text
		}
		for _, line := range lines[max(0, len(lines)-logTail):] {
			e.Log = append(e.Log, readable(line))
		}
	}
	return e
}

// timedOut says of every pod where it stands, and shows the log of those that are not ready and could run.
func (v *vigil) timedOut(ctx context.Context, source podSource) error {
	for _, name := range v.want.Pods {
		if pod := v.pods[name]; pod != nil && v.rejected(name, pod) {
			return v.givenUp(name, pod)
		}
	}
	var b strings.Builder
	what := "the control plane is"
	if len(v.want.Former) > 0 {
		what = strings.Join(v.want.Pods, ", ")
	}
	fmt.Fprintf(&b, "%s not ready after %s:", what, v.want.Deadline)
	blamed := ""
	for _, name := range v.want.Pods {
		fmt.Fprintf(&b, "\n  %s: %s", name, v.describe(name))
		if blamed == "" && !v.ready[name] && v.lacks(name) == "" {
			blamed = name
		}
	}
	e := &NotReady{Reason: b.String(), err: context.DeadlineExceeded}
	if blamed != "" {
		lines, cause, known := evidence(ctx, source, v.fullName(blamed), blamed, v.container(blamed))
		e = notReady(blamed, e.Reason, lines, cause, known)
		e.err = context.DeadlineExceeded
	}
	return e
}

// evidence returns the container's last lines and what they tell. The cause is looked for in what is shown first: far
// back, harmless lines may look like one.
func evidence(ctx context.Context, source podSource, fullName, component, container string) ([]string, Cause, bool) {
	all, err := source.logs(ctx, fullName, container, causeTail)
	if err != nil {
		return nil, Cause{}, false
	}
	shown := all[max(0, len(all)-logTail):]
	cause, known := LikelyCause(component, shown)
	if !known {
		cause, known = LikelyCause(component, all)
		if known {
			shown = append([]string{cause.Line, "…"}, shown...)
		}
	}
	lines := make([]string, len(shown))
	for i, line := range shown {
		lines[i] = readable(line)
	}
	return lines, cause, known
}

// NotReady says why a pod that was waited for does not become ready.
type NotReady struct {
	Pod    string   // as in Wait.Pods; "" when no single one is to blame
	Reason string   // what was seen of it: a line, or several
	Log    []string // its last lines
	Cause  string   // what the log tells; "" when that is nothing known
	Next   string   // for the user; "" for nothing
	// GivenUp says that the supervisor has returned to the version before, and Recovered that this one is ready.
	GivenUp, Recovered bool

	noLog bool // it left none
	err   error
}

func notReady(pod, reason string, log []string, cause Cause, known bool) *NotReady {
	e := &NotReady{Pod: pod, Reason: reason, Log: log, noLog: len(log) == 0, Next: "slipway logs " + pod}
	if known {
		e.Cause = cause.Text
	}
	return e
}

func (e *NotReady) Unwrap() error { return e.err }

// Error is Why, and below it the next step.
func (e *NotReady) Error() string {
	if e.Next == "" {
		return e.Why()
	}
	return e.Why() + "\n  next: " + e.Next
}

// Why is the reason, and below it the log and the likely cause.
func (e *NotReady) Why() string {
	var b strings.Builder
	b.WriteString(e.Reason)
	if len(e.Log) > 0 {
		fmt.Fprintf(&b, "\n  last log lines of %s:\n    %s", e.Pod, strings.Join(e.Log, "\n    "))
	} else if e.noLog {
		fmt.Fprintf(&b, "\n  %s left no log", e.Pod)
	}
	if e.Cause != "" {
		fmt.Fprintf(&b, "\n  likely cause: %s", e.Cause)
	}
	return b.String()
}
