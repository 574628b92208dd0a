// Package staticpod writes rendered pods as the manifests that the supervisor reads.
package staticpod

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/patch"
	"github.com/slipway-k8s/slipway/templates"
)

// Manifest is a static pod as it goes to disk.
type Manifest struct {
	Pod  *corev1.Pod // the user's patches applied
	File artifact.File
}

// New returns the manifest of a rendered pod, with the user's patches for it applied.
func New(cfg *config.Cluster, pod *corev1.Pod) (Manifest, error) {
	patched, err := patch.Pod(pod, cfg.Patches)
	if err != nil {
		return Manifest{}, err
	}
	data, err := templates.Marshal(patched)
	if err != nil {
		return Manifest{}, err
	}
	path := filepath.Join(cfg.Paths.Manifests, pod.Name+".yaml")
	return Manifest{Pod: patched, File: artifact.File{Path: path, Data: data, Mode: 0o600}}, nil
}

// Put writes the manifest, after the host paths that its pod would otherwise make when it starts: what the store
// makes is recorded, and goes again with reset.
func (m Manifest) Put(env *phases.Env) error {
	for _, source := range missingSources(m.Pod, env.Config.Paths) {
		if err := putMissing(env.Files, source); err != nil {
			return err
		}
	}
	if err := PutDir(env.Files, env.Config.Paths.Manifests, 0o700); err != nil {
		return err
	}
	if err := env.Files.Put(m.File); err != nil {
		return fmt.Errorf("writing %q: %w", m.File.Path, err)
	}
	return nil
}

// PutDir makes a directory where there is none. One that is there keeps its mode: it may be the user's.
func PutDir(files artifact.Store, path string, perm fs.FileMode) error {
	return putMissing(files, artifact.File{Path: path, Mode: fs.ModeDir | perm})
}

// PutTree puts a directory that a component fills: whatever comes to be below it is as much slipway's as the directory.
// One that is there already stays as it is, and what it holds stays its owner's.
func PutTree(files artifact.Store, path string, perm fs.FileMode) error {
	return putMissing(files, artifact.File{Path: path, Mode: fs.ModeDir | perm, Tree: true})
}

func putMissing(files artifact.Store, file artifact.File) error {
	_, err := files.ReadFile(file.Path)
	if err == nil {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at %q: %w", file.Path, err)
	}
	if err := files.Put(file); err != nil {
		return fmt.Errorf("making %q: %w", file.Path, err)
	}
	return nil
}

// missingSources returns the …OrCreate sources of the pod's volumes, parents first, with the modes that a kubelet
// gives them (kubernetes v1.36.3 pkg/volume/hostpath/host_path.go:505 and :517: 0755 and 0644). Those below slipway's own
// directories are left to the phases that fill them: an empty kubeconfig in their place would only look like one.
func missingSources(pod *corev1.Pod, paths config.Paths) []artifact.File {
	var sources []artifact.File
	for _, v := range pod.Spec.Volumes {
		if v.HostPath == nil || v.HostPath.Type == nil || within(v.HostPath.Path, paths.Kubernetes) || within(v.HostPath.Path, paths.PKI) {
			continue
		}
		switch *v.HostPath.Type {
		case corev1.HostPathDirectoryOrCreate:
			sources = append(sources, artifact.File{Path: v.HostPath.Path, Mode: fs.ModeDir | 0o755})
		case corev1.HostPathFileOrCreate:
			sources = append(sources, artifact.File{Path: v.HostPath.Path, Data: []byte{}, Mode: 0o644})
		}
	}
	slices.SortFunc(sources, func(a, b artifact.File) int { return cmp.Compare(a.Path, b.Path) })
	return sources
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
