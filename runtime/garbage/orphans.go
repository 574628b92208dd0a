package garbage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/garbage/marker"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

const (
	// orphanPeriod is the kubelet's for containers. Kubernetes v1.36.3 pkg/kubelet/kubelet.go:231.
	orphanPeriod = time.Minute
	// grace is how long something must have been without an owner, at two looks in a row at least: a pod that is being
	// made or removed is nobody's for a moment.
	grace = time.Minute
)

// Known is everything that must not be removed.
type Known struct {
	// Pods are the uids of the pods that are wanted, that are being worked on, or of which the runtime has a sandbox or a
	// container.
	Pods []string
	// Names are the full names, "namespace/name", of pods that are spared whatever their uid: something is wrong with
	// their manifest, and nobody knows the uid that it will have.
	Names []string
	// Containers are the ids of the runtime's containers, running or not.
	Containers []string
}

// Orphans removes what pods of this instance have left on disk. It goes by the markers in pod directories: what has none
// is somebody else's. See docs/decisions/0026-garbage.md. Every field is set by the caller.
type Orphans struct {
	// Node has the directories, the instance and the layout of cgroups.
	Node podspec.Node
	// Known is asked before anything is removed. It fails with ErrUnknown while not every source of manifests has been
	// read.
	Known func(ctx context.Context) (Known, error)
	// Remove removes everything that a pod has left. Remover.Remove does.
	Remove func(ctx context.Context, pod marker.Pod) error

	sightings map[string]time.Time // since when something has been without an owner, by path
}

// collect does one round, and goes on with the next orphan where one cannot be removed.
func (o *Orphans) collect(ctx context.Context, now time.Time, log *slog.Logger) error {
	pods, err := o.marked()
	if err != nil {
		return err
	}
	known, err := o.Known(ctx)
	if err != nil {
		return err
	}
	var due []string
	due, o.sightings = overdue(o.sightings, slices.Concat(orphanDirs(pods, known), o.deadLinks(pods, known)), now)
	if len(due) == 0 {
		return nil
	}
	if known, err = o.Known(ctx); err != nil { // the same manifest may have come back since
		return err
	}
	pending := slices.Concat(orphanDirs(pods, known), o.deadLinks(pods, known))
	var errs []error
	for _, path := range due {
		if !slices.Contains(pending, path) || ctx.Err() != nil {
			continue
		}
		if pod, isDir := pods[path]; isDir {
			err = o.Remove(ctx, pod)
		} else {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing %s, which no pod needs: %w", path, err))
			continue
		}
		delete(o.sightings, path)
		log.Info("removed what no pod needs", "path", path)
	}
	return errors.Join(errs...)
}

// marked returns the pod directories with a marker of this instance, by path.
func (o *Orphans) marked() (map[string]marker.Pod, error) {
	entries, err := os.ReadDir(filepath.Join(o.Node.KubeletRoot, "pods"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for pod directories: %w", err)
	}
	pods := map[string]marker.Pod{}
	for _, e := range entries {
		dir := podspec.PodDir(e.Name(), o.Node)
		if !e.IsDir() { // nor a link to one
			continue
		}
		pod, err := readMarker(dir)
		if err == nil && pod.UID == e.Name() && pod.Instance == o.Node.Instance {
			pods[dir] = pod
		}
	}
	return pods, nil
}

func readMarker(dir string) (marker.Pod, error) {
	path := filepath.Join(dir, marker.Name)
	info, err := os.Lstat(path)
	if err != nil {
		return marker.Pod{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > marker.MaxSize {
		return marker.Pod{}, fmt.Errorf("%s is no marker", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return marker.Pod{}, err
	}
	return marker.Decode(data)
}

// orphanDirs returns the directories of pods that nobody knows, sorted.
func orphanDirs(pods map[string]marker.Pod, known Known) []string {
	var out []string
	for dir, pod := range pods {
		if !slices.Contains(known.Pods, pod.UID) && !slices.Contains(known.Names, pod.FullName()) {
			out = append(out, dir)
		}
	}
	slices.Sort(out)
	return out
}

// deadLinks returns the links for log collectors that lead to no file, of containers of ours that the runtime does not
// know. While a log is rotated the link to it leads nowhere either, but then its container is known.
func (o *Orphans) deadLinks(pods map[string]marker.Pod, known Known) []string {
	if o.Node.ContainerLogsDir == "" {
		return nil
	}
	logs := map[string]bool{}
	for _, pod := range pods {
		logs[logDir(pod, o.Node)] = true
	}
	entries, _ := os.ReadDir(o.Node.ContainerLogsDir) // without it there are no links
	var out []string
	for _, e := range entries {
		link := filepath.Join(o.Node.ContainerLogsDir, e.Name())
		target, err := os.Readlink(link)
		if err != nil || !logs[filepath.Dir(filepath.Dir(target))] {
			continue
		}
		_, err = os.Stat(link)
		id := strings.TrimSuffix(e.Name()[strings.LastIndexByte(e.Name(), '-')+1:], ".log")
		if errors.Is(err, fs.ErrNotExist) && !slices.Contains(known.Containers, id) {
			out = append(out, link)
		}
	}
	return out
}

func logDir(pod marker.Pod, n podspec.Node) string {
	return podspec.LogDir(&manifest.StaticPod{
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}, UID: pod.UID,
	}, n)
}

// overdue returns which of the candidates have been candidates at every look for the time of grace, and the sightings
// to go on with.
func overdue(sightings map[string]time.Time, candidates []string, now time.Time) (due []string, next map[string]time.Time) {
	next = maps.Clone(sightings)
	maps.DeleteFunc(next, func(path string, _ time.Time) bool { return !slices.Contains(candidates, path) })
	if next == nil {
		next = map[string]time.Time{}
	}
	for _, path := range candidates {
		since, seen := next[path]
		if !seen {
			next[path] = now
			continue
		}
		if now.Sub(since) >= grace {
			due = append(due, path)
		}
	}
	return due, next
}
