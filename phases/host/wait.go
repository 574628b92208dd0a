package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func (l *Live) WaitReady(ctx context.Context, w Wait, report func(Progress)) error {
	client := newSupervisorClient(l.paths.SupervisorSocket)
	defer client.close()
	return waitReady(ctx, w, client, report)
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
	// it had given up before.
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
			if hopeless = v.hopeless(ctx, source); hopeless == nil && settled {
				hopeless = v.givenUp()
			}
			if !settled && v.givenUp() != nil {
				time.AfterFunc(newsTakes-time.Since(v.began), again) // to look once more, though nothing changes
			}
			return hopeless == nil && !v.allReady()
		})
		again()
		switch {
		case hopeless != nil:
			return hopeless
		case v.allReady():
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
		text := fmt.Sprintf("%s cannot start: it exited with code %d, %d times", s.pod, s.code, s.exits)
		return errors.New(text + details(s.pod, lines, cause, known))
	}
	return nil
}

// givenUp returns an error for the first pod whose manifest the supervisor has given up, or nil.
func (v *vigil) givenUp() error {
	for _, name := range v.want.Pods {
		pod := v.pods[name]
		if pod == nil || pod.Annotations[annotationRejected] == "" {
			continue
		}
		text := fmt.Sprintf("the new version of %s was given up: %s\n  the last version that was ready runs again", name, pod.Annotations[annotationRejected])
		if log := pod.Annotations[annotationRejectedLog]; log != "" {
			lines := strings.Split(strings.TrimSpace(log), "\n")
			text += "\n  its last log lines:\n    " + strings.Join(lines[max(0, len(lines)-logTail):], "\n    ")
		}
		return fmt.Errorf("%s\n  next: mend its configuration and run this again; slipway status %s", text, name)
	}
	return nil
}

// timedOut says of every pod where it stands, and shows the log of those that are not ready and could run.
func (v *vigil) timedOut(ctx context.Context, source podSource) error {
	var b strings.Builder
	fmt.Fprintf(&b, "the control plane is not ready after %s:", v.want.Deadline)
	blamed := ""
	for _, name := range v.want.Pods {
		fmt.Fprintf(&b, "\n  %s: %s", name, v.describe(name))
		if blamed == "" && !v.ready[name] && v.lacks(name) == "" {
			blamed = name
		}
	}
	if blamed != "" {
		lines, cause, known := evidence(ctx, source, v.fullName(blamed), blamed, v.container(blamed))
		b.WriteString(details(blamed, lines, cause, known))
	}
	return &detailed{text: b.String(), err: context.DeadlineExceeded}
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

// details is the lower part of an error about a component: log, cause, next step.
func details(component string, lines []string, cause Cause, known bool) string {
	var b strings.Builder
	if len(lines) > 0 {
		fmt.Fprintf(&b, "\n  last log lines of %s:\n    %s", component, strings.Join(lines, "\n    "))
	} else {
		fmt.Fprintf(&b, "\n  %s left no log", component)
	}
	if known {
		fmt.Fprintf(&b, "\n  likely cause: %s", cause.Text)
	}
	fmt.Fprintf(&b, "\n  next: slipway logs %s", component)
	return b.String()
}
