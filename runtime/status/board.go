package status

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Board holds the latest status of every pod. Workers write to it, the local API reads from it; it is safe for both at
// once. Use NewBoard.
type Board struct {
	mu       sync.Mutex
	pods     map[string]*corev1.Pod // by full name; values are never changed, only replaced
	details  map[string]Detail      // the same
	refused  map[string]string      // by full name: why the API server does not take the mirror
	problems []Problem
	changed  chan struct{} // closed and replaced at every change
}

// NewBoard returns an empty board.
func NewBoard() *Board {
	return &Board{pods: map[string]*corev1.Pod{}, details: map[string]Detail{}, refused: map[string]string{}, changed: make(chan struct{})}
}

// Publish replaces the status of one pod. Readers are woken only when it shows something new.
func (b *Board) Publish(v View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.pods[v.Name]
	pod := Pod(v, before)
	detail := detailOf(v, pod, b.refused[v.Name])
	if before != nil && equality.Semantic.DeepEqual(before, pod) && reflect.DeepEqual(b.details[v.Name], detail) {
		return
	}
	b.pods[v.Name], b.details[v.Name] = pod, detail
	b.announce()
}

// Remove takes a pod that is gone off the board.
func (b *Board) Remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, there := b.pods[name]; there {
		delete(b.pods, name)
		delete(b.details, name)
		delete(b.refused, name)
		b.announce()
	}
}

// SetProblems replaces the manifests that are refused.
func (b *Board) SetProblems(problems []Problem) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.problems, problems) {
		b.problems = problems
		b.announce()
	}
}

// MirrorRefused notes why the API server does not take a pod's mirror, "" once it does. It is shown as the pod's
// Detail.NotShown.
func (b *Board) MirrorRefused(pod, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, there := b.details[pod]
	if !there || b.refused[pod] == reason {
		return
	}
	b.refused[pod], d.NotShown = reason, reason
	b.details[pod] = d
	b.announce()
}

func (b *Board) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Pods returns every pod, sorted by namespace and name, the refused manifests, and a channel that is closed at the
// next change. The pods must not be changed.
func (b *Board) Pods() (*corev1.PodList, []Problem, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sorted := slices.SortedFunc(maps.Values(b.pods), func(x, y *corev1.Pod) int {
		return strings.Compare(x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name)
	})
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: make([]corev1.Pod, len(sorted))}
	for i, p := range sorted {
		list.Items[i] = *p
	}
	return list, b.problems, b.changed
}

// Details returns what Pods leaves out, of every pod, sorted by full name, and a channel that is closed at the next
// change.
func (b *Board) Details() ([]Detail, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Detail, 0, len(b.details))
	for _, d := range b.details {
		list = append(list, d)
	}
	slices.SortFunc(list, func(x, y Detail) int { return strings.Compare(x.Pod, y.Pod) })
	return list, b.changed
}

// Wait returns at the next change after changed was handed out, or with ctx.
func Wait(ctx context.Context, changed <-chan struct{}) error {
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
