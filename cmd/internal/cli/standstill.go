package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/templates"
)

const (
	// haltTimeout is how long pods may take to stop: the grace period of a static pod, 30 s, and as much again for a
	// loaded machine.
	haltTimeout = time.Minute
	// onceTimeout is how long a pod that runs once may take: etcdutl reads and writes a snapshot, 8 GiB at 30 MB/s.
	onceTimeout = 5 * time.Minute
	// glance is the pause between two looks at the supervisor's pods.
	glance = 50 * time.Millisecond
)

// standstill stops the control plane and starts it again, by its manifests: what is put aside, the supervisor stops. An
// interrupted one is continued by the command that began it.
type standstill struct {
	client *local
	disk   artifact.Store // recorded in the ledger
	book   *ledger.Ledger
	plane  *plane.Plane
	roll   *rollout
}

// halt stops the components, the API server before etcd. What has stopped already stays so.
func (s *standstill) halt(ctx context.Context) error {
	dir := plane.Aside(s.plane.Paths)
	if err := s.disk.Put(artifact.File{Path: dir, Mode: fs.ModeDir | 0o700, Tree: true}); err != nil {
		return err
	}
	for _, group := range [][]string{{plane.Scheduler, plane.ControllerManager, plane.APIServer}, {plane.Etcd}} {
		for _, name := range group {
			if err := s.putAside(name); err != nil {
				return fmt.Errorf("stopping %s: %w", name, err)
			}
		}
		s.roll.report("stopping " + strings.Join(group, ", "))
		if err := s.gone(ctx, group, haltTimeout); err != nil {
			return err
		}
	}
	return nil
}

func (s *standstill) putAside(name string) error {
	path := filepath.Join(s.plane.Paths.Manifests, name+".yaml")
	f, err := s.disk.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f.Path = filepath.Join(plane.Aside(s.plane.Paths), name+".yaml")
	if err := s.disk.Put(f); err != nil {
		return err
	}
	return s.disk.Remove(path)
}

// gone waits until the supervisor has no pod of these names any more.
func (s *standstill) gone(ctx context.Context, names []string, limit time.Duration) error {
	return s.look(ctx, limit, "to stop", func(pods []corev1.Pod) (string, error) {
		for _, name := range names {
			if find(pods, name) != nil {
				return name, nil
			}
		}
		return "", nil
	})
}

// raise starts the components from the given manifests and waits until all are ready.
func (s *standstill) raise(ctx context.Context, manifests []artifact.File) error {
	versions := map[string]string{}
	for _, f := range manifests {
		name := strings.TrimSuffix(filepath.Base(f.Path), ".yaml")
		f.Path = filepath.Join(s.plane.Paths.Manifests, name+".yaml")
		version, err := versionOf(f.Data, s.roll.node)
		if err != nil {
			return fmt.Errorf("starting %s: %w", name, err)
		}
		if err := s.disk.Put(f); err != nil {
			return fmt.Errorf("starting %s: %w", name, err)
		}
		versions[name] = version
	}
	if err := s.roll.taken(ctx, versions); err != nil {
		return err
	}
	for _, name := range plane.Components() {
		err := s.disk.Remove(filepath.Join(plane.Aside(s.plane.Paths), name+".yaml"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// manifests are the plane's own, unchanged.
func (s *standstill) manifests() []artifact.File {
	var files []artifact.File
	for _, name := range plane.Components() {
		if c := s.plane.Components[name]; c != nil {
			files = append(files, c.File)
		}
	}
	return files
}

// once runs a pod to its end under the supervisor, and takes it away again. An exit code other than 0 is an error with
// what the pod has logged last.
func (s *standstill) once(ctx context.Context, pod *corev1.Pod) error {
	for _, at := range []struct{ dir, pattern string }{
		{s.plane.Paths.PodLogs, fmt.Sprintf("%s_%s-%s_*", pod.Namespace, pod.Name, s.roll.node)},
		{s.plane.Paths.ContainerLogs, fmt.Sprintf("%s-%s_%s_*", pod.Name, s.roll.node, pod.Namespace)},
	} {
		if err := s.book.Record(ledger.Entry{Kind: ledger.Glob, Path: filepath.Join(at.dir, at.pattern)}); err != nil {
			return err
		}
	}
	data, err := templates.Marshal(pod)
	if err != nil {
		return err
	}
	path := filepath.Join(s.plane.Paths.Manifests, pod.Name+".yaml")
	if err := s.disk.Put(artifact.File{Path: path, Data: data, Mode: 0o600}); err != nil {
		return err
	}
	ended := s.ended(ctx, pod.Name)
	err = s.disk.Remove(path)
	away, cancel := context.WithTimeout(context.WithoutCancel(ctx), haltTimeout)
	defer cancel()
	return errors.Join(ended, err, s.gone(away, []string{pod.Name}, haltTimeout))
}

// withdraw ends the pod of a run that was killed: it may still write, and how it ended says nothing of this run.
func (s *standstill) withdraw(ctx context.Context, name string) error {
	err := s.disk.Remove(filepath.Join(s.plane.Paths.Manifests, name+".yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.gone(ctx, []string{name}, haltTimeout)
}

// ended waits until a pod has run to its end.
func (s *standstill) ended(ctx context.Context, name string) error {
	var failed error
	err := s.look(ctx, onceTimeout, "to end", func(pods []corev1.Pod) (string, error) {
		p := find(pods, name)
		if p == nil || len(p.Status.ContainerStatuses) == 0 {
			return name, nil
		}
		state := p.Status.ContainerStatuses[0].State
		switch {
		case state.Terminated == nil && state.Waiting != nil && state.Waiting.Message != "":
			return name + " (" + state.Waiting.Message + ")", nil
		case state.Terminated == nil:
			return name, nil
		case state.Terminated.ExitCode != 0:
			failed = fmt.Errorf("%s ended with exit code %d%s", name, state.Terminated.ExitCode, s.lastWords(ctx, p))
		}
		return "", nil
	})
	return errors.Join(err, failed)
}

// lastWords are the last lines of a pod's log, for an error.
func (s *standstill) lastWords(ctx context.Context, p *corev1.Pod) string {
	resp, err := s.client.open(ctx, "/logs"+query("pod", p.Namespace+"/"+p.Name, "container", p.Spec.Containers[0].Name, "tail", "10"))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var b strings.Builder
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what came of it is better than nothing
	for line := range strings.Lines(string(text)) {
		b.WriteString("\n    " + strings.TrimRight(line, "\n"))
	}
	return b.String()
}

// look asks the supervisor for its pods until wanting says nothing any more. What it says last is part of the error when
// the time is up.
func (s *standstill) look(ctx context.Context, limit time.Duration, what string, wanting func([]corev1.Pod) (string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for said := ""; ; {
		list, err := s.client.pods(ctx)
		if err == nil {
			said, err = wanting(list.Items)
			if err == nil && said == "" {
				return nil
			}
		}
		pause := time.NewTimer(glance)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			if err != nil && said == "" {
				return fmt.Errorf("waiting for pods %s: %w", what, err)
			}
			return fmt.Errorf("waiting for %s %s: %w", said, what, ctx.Err())
		}
	}
}

// find returns the pod of kube-system that has the manifest's name, or nil.
func find(pods []corev1.Pod, name string) *corev1.Pod {
	for i, p := range pods {
		if p.Namespace == metav1.NamespaceSystem && (podName{p.Namespace, p.Name, p.Spec.NodeName}).manifest() == name {
			return &pods[i]
		}
	}
	return nil
}
