package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/garbage"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// owe notes whether the clean-up of a uid must be asked for again.
func (w *worker) owe(uid string, owed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if owed {
		w.left[uid] = true
	} else {
		delete(w.left, uid)
	}
}

// bare is a version of which only the uid is known: enough to find its directories.
func (w *worker) bare(uid string) *manifest.StaticPod {
	namespace, name, _ := strings.Cut(w.name, "/")
	return &manifest.StaticPod{Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, UID: uid}
}

// isElement tells whether a uid, which may come from somebody else's label, is one element of a path and nothing more.
func isElement(uid string) bool {
	return filepath.IsLocal(uid) && filepath.Base(uid) == uid && uid != "."
}

// removeTraces removes the log of a removed container, its link and its termination log, as a kubelet does: a container
// that restarts for ever must not fill the disk.
func (w *worker) removeTraces(a lifecycle.Action) error {
	if !isElement(a.UID) || !isElement(a.Name) {
		return nil
	}
	node, pod := w.s.c.Node, w.bare(a.UID)
	log := filepath.Join(podspec.LogDir(pod, node), podspec.LogPath(a.Name, a.Attempt))
	paths := []string{log}
	if rotated, err := filepath.Glob(log + ".*"); err == nil {
		paths = append(paths, rotated...)
	}
	if node.ContainerLogsDir != "" {
		paths = append(paths, filepath.Join(node.ContainerLogsDir, podspec.LogLink(pod, a.Name, a.ID)))
	}
	spec := &corev1.Container{Name: a.Name, TerminationMessagePath: corev1.TerminationMessagePathDefault} // any path but ""
	paths = append(paths, podspec.TerminationLog(pod, spec, a.Attempt, node))
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// cleanUp removes what the supervisor made for one version of a pod: its cgroup, directories and log links.
func (w *worker) cleanUp(uid string) error {
	if !isElement(uid) {
		return nil
	}
	node := w.s.c.Node
	logs := podspec.LogDir(w.bare(uid), node)
	errs := []error{removeLogLinks(node.ContainerLogsDir, logs), os.RemoveAll(logs)}
	for _, parent := range podspec.CgroupParents(uid, node) {
		errs = append(errs, w.s.c.Cgroups.Remove(parent))
	}
	if err := errors.Join(errs...); err != nil {
		return err // by the directory the rest is found again
	}
	return garbage.RemovePodDir(podspec.PodDir(uid, node))
}

// removeLogLinks removes the links whose log is a file below dir.
func removeLogLinks(links, dir string) error {
	if links == "" {
		return nil
	}
	entries, err := os.ReadDir(links)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading %s: %w", links, err)
	}
	var errs []error
	for _, e := range entries {
		link := filepath.Join(links, e.Name())
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") {
			errs = append(errs, os.Remove(link))
		}
	}
	return errors.Join(errs...)
}
