package apply

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// Kind says what a Step does.
type Kind int

const (
	Write      Kind = iota // files that are no manifests
	Runtime                // slipway's own containerd runs with its new configuration; the pods go on
	Supervisor             // the supervisor runs with its new configuration; the pods go on
	NewVersion             // a manifest, and the wait for its version
	Restart                // a component whose manifest stays, and which reads files that change
)

// Step is one thing to do. A step is waited for before the next begins.
type Step struct {
	Kind    Kind
	Pod     string            // NewVersion and Restart: the component
	Changes []artifact.Change // Write and NewVersion
	Because []string          // Restart: the files
}

// String is one line for the user.
func (s Step) String() string {
	switch s.Kind {
	case Write:
		if len(s.Changes) == 1 {
			return "write " + s.Changes[0].File().Path
		}
		return fmt.Sprintf("write %d files", len(s.Changes))
	case Runtime:
		return "restart containerd, the pods go on"
	case Supervisor:
		return "restart the supervisor, the pods go on"
	case NewVersion:
		return fmt.Sprintf("replace %s, and wait until it is ready", s.Pod)
	case Restart:
		return fmt.Sprintf("restart %s for %s, and wait until it is ready", s.Pod, strings.Join(s.Because, ", "))
	}
	return fmt.Sprintf("step %d", int(s.Kind))
}

// Plan returns the steps that lead to the changes: files first, then what runs the pods, then each component that is
// affected, behind those that it needs. Manifests are told by their place below the node's; which component reads which
// file, by its command line. Without changes there are no steps.
func Plan(changes []artifact.Change, paths config.Paths, is *Node) []Step {
	manifests := map[string]artifact.Change{}
	var files []artifact.Change
	for _, c := range changes {
		path := c.File().Path
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		switch {
		case c.Op == artifact.Unchanged:
		case filepath.Dir(path) == is.Manifests && slices.Contains(plane.Components(), name) && c.Op != artifact.Chmod:
			manifests[name] = c
		default:
			files = append(files, c)
		}
	}
	var steps []Step
	if len(files) > 0 {
		steps = append(steps, Step{Kind: Write, Changes: files})
	}
	if touches(files, paths.ContainerdConfig, filepath.Join(paths.Units, paths.ContainerdUnit)) {
		steps = append(steps, Step{Kind: Runtime})
	}
	if touches(files, paths.KubeletConfig, filepath.Join(paths.Units, paths.SupervisorUnit)) {
		steps = append(steps, Step{Kind: Supervisor})
	}
	for _, name := range plane.Components() {
		c, changed := manifests[name]
		if changed {
			steps = append(steps, Step{Kind: NewVersion, Pod: name, Changes: []artifact.Change{c}})
			continue
		}
		var because []string
		for _, f := range files {
			if path := f.File().Path; !f.File().Mode.IsDir() && f.Op != artifact.Chmod && reads(is.Pods[name], path) {
				because = append(because, path)
			}
		}
		if len(because) > 0 {
			steps = append(steps, Step{Kind: Restart, Pod: name, Because: because})
		}
	}
	return steps
}

func touches(changes []artifact.Change, paths ...string) bool {
	return slices.ContainsFunc(changes, func(c artifact.Change) bool { return slices.Contains(paths, c.File().Path) })
}

// reads tells whether a container of the pod is started with the host's file: a flag names the place where it is
// mounted. Files that a component finds by itself in a directory are not seen.
func reads(pod *corev1.Pod, path string) bool {
	if pod == nil {
		return false
	}
	for _, c := range pod.Spec.Containers {
		for _, arg := range append(append([]string(nil), c.Command...), c.Args...) {
			_, value, ok := strings.Cut(arg, "=")
			if ok && filepath.IsAbs(value) && onHost(pod, c, filepath.Clean(value)) == path {
				return true
			}
		}
	}
	return false
}

// onHost returns what a path in a container is on the host; "" where no host path is mounted there.
func onHost(pod *corev1.Pod, c corev1.Container, path string) string {
	longest, host := -1, ""
	for _, m := range c.VolumeMounts {
		rest, below := strings.CutPrefix(path, strings.TrimSuffix(m.MountPath, "/"))
		if !below || rest != "" && !strings.HasPrefix(rest, "/") || len(m.MountPath) <= longest {
			continue
		}
		for _, v := range pod.Spec.Volumes {
			if v.Name == m.Name && v.HostPath != nil {
				longest, host = len(m.MountPath), filepath.Join(v.HostPath.Path, m.SubPath, rest)
			}
		}
	}
	return host
}
