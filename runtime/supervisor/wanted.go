package supervisor

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// wanted is what the sources want together.
//
// A pod stops being wanted only when that is certain: every source has delivered, and no problem names the pod. A pod
// that runs without this process having read its manifest is left alone for longer, until no problem is anonymous
// either: see lacks.
type wanted struct {
	node     podspec.Node         // what it cannot do is refused
	parts    []*manifest.Snapshot // by source; nil until it has delivered
	merged   manifest.Snapshot
	pods     map[string]*manifest.StaticPod // by full name, with the time of first sight
	problems map[string]string              // by full name: why a version of it is not taken
}

func newWanted(sources int, node podspec.Node) wanted {
	return wanted{
		node:  node,
		parts: make([]*manifest.Snapshot, sources),
		pods:  map[string]*manifest.StaticPod{}, problems: map[string]string{},
	}
}

// complete tells whether every source has delivered at least once.
func (w *wanted) complete() bool { return !slices.Contains(w.parts, nil) }

// lacks tells whether a pod that runs certainly has no manifest. While some manifest is invalid and nobody can tell
// which pod it means, nothing is certain.
func (w *wanted) lacks(name string) bool {
	_, anonymous := w.problems[""]
	_, named := w.problems[name]
	return w.pods[name] == nil && w.complete() && !anonymous && !named
}

func (w *wanted) list() []*corev1.Pod {
	pods := make([]*corev1.Pod, 0, len(w.pods))
	for _, p := range w.pods {
		pods = append(pods, p.Pod)
	}
	return pods
}

// accept takes a source's snapshot in, and returns the problems that were not there before.
func (w *wanted) accept(source int, snapshot manifest.Snapshot, now time.Time) (fresh []manifest.Problem) {
	part := refuse(snapshot, w.pods, w.node)
	w.parts[source] = &part
	var parts []manifest.Snapshot
	for _, p := range w.parts {
		if p != nil {
			parts = append(parts, *p)
		}
	}
	before := w.merged.Problems
	w.merged = manifest.Merge(w.merged, parts...)
	w.problems = map[string]string{}
	for _, p := range w.merged.Problems {
		text := p.Err.Error()
		if !strings.HasPrefix(text, p.Source) {
			text = p.Source + ": " + text
		}
		if other := w.problems[p.FullName]; other != "" {
			text = other + "; " + text
		}
		w.problems[p.FullName] = text
		if !slices.ContainsFunc(before, func(b manifest.Problem) bool { return b.Source == p.Source && b.Err.Error() == p.Err.Error() }) {
			fresh = append(fresh, p)
		}
	}
	w.pods = w.resolve(now)
	return fresh
}

// resolve returns the pods that are wanted now. A pod that has not changed keeps its time of first sight.
func (w *wanted) resolve(now time.Time) map[string]*manifest.StaticPod {
	pods := map[string]*manifest.StaticPod{}
	for _, p := range w.merged.Pods {
		name := p.FullName()
		switch old := w.pods[name]; {
		case old == nil || versionOf(old) != versionOf(p):
			pods[name] = seenAt(p, now)
		case old.Source != p.Source:
			moved := *old
			moved.Source = p.Source
			pods[name] = &moved
		default:
			pods[name] = old
		}
	}
	for name, old := range w.pods {
		if pods[name] == nil && (!w.complete() || w.problems[name] != "") {
			pods[name] = old
		}
	}
	return pods
}

// shown is the problems as the local API shows them.
func (w *wanted) shown() []status.Problem {
	var out []status.Problem
	for _, p := range w.merged.Problems {
		out = append(out, status.Problem{Source: p.Source, Pod: p.FullName, Reason: p.Err.Error()})
	}
	return out
}

// refuse moves the pods that use a field which the supervisor does not act on to the problems. Where a former version
// of such a pod is wanted already, that one stays: a version that cannot be run never stops the one that runs.
func refuse(snap manifest.Snapshot, before map[string]*manifest.StaticPod, node podspec.Node) manifest.Snapshot {
	out := manifest.Snapshot{Problems: slices.Clone(snap.Problems)}
	for _, p := range snap.Pods {
		err := podspec.Refuse(p.Pod, node)
		if err == nil {
			out.Pods = append(out.Pods, p)
			continue
		}
		out.Problems = append(out.Problems, manifest.Problem{Source: p.Source, FullName: p.FullName(), Err: err})
		if old := before[p.FullName()]; old != nil && old.Source == p.Source {
			out.Pods = append(out.Pods, old)
		}
	}
	return out
}

// versionOf names one version of a pod, "" for none.
func versionOf(p *manifest.StaticPod) string {
	if p == nil {
		return ""
	}
	return p.UID + "/" + p.SpecHash
}

// seenAt returns the pod with the time of its first sight. The rest is shared: nobody changes it.
func seenAt(p *manifest.StaticPod, now time.Time) *manifest.StaticPod {
	seen, pod := *p, *p.Pod
	pod.Annotations = map[string]string{manifest.AnnotationConfigSeen: now.Format(time.RFC3339Nano)}
	for k, v := range p.Pod.Annotations {
		if k != manifest.AnnotationConfigSeen {
			pod.Annotations[k] = v
		}
	}
	seen.Pod = &pod
	return &seen
}
