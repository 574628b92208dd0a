// Package controlplane holds the phases that write the manifests of the three Kubernetes components.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/staticpod"
	"github.com/slipway-k8s/slipway/templates"
)

// New returns the phase "control-plane" with one child for each component.
func New() phases.Phase {
	return phases.Phase{
		Name:  "control-plane",
		Short: "Write the static pod manifests of the control plane",
		Phases: []phases.Phase{
			{Name: "apiserver", Short: "Write the static pod manifest of kube-apiserver", Run: run(apiServer)},
			{Name: "controller-manager", Short: "Write the static pod manifest of kube-controller-manager", Run: run(controllerManager)},
			{Name: "scheduler", Short: "Write the static pod manifest of kube-scheduler", Run: run(scheduler)},
		},
	}
}

// renderer returns one component's pod.
type renderer func(*config.Cluster, SigningCA) (*corev1.Pod, error)

func run(render renderer) func(context.Context, *phases.Env) error {
	return func(_ context.Context, env *phases.Env) error {
		ca, err := FindSigningCA(env.Config, env.Files)
		if err != nil {
			return err
		}
		m, err := manifest(env.Config, ca, render)
		if err != nil {
			return err
		}
		return m.Put(env)
	}
}

// Manifests returns the three manifests. They depend on its parameters alone.
func Manifests(cfg *config.Cluster, ca SigningCA) ([]artifact.File, error) {
	var files []artifact.File
	for _, render := range []renderer{apiServer, controllerManager, scheduler} {
		m, err := manifest(cfg, ca, render)
		if err != nil {
			return nil, err
		}
		files = append(files, m.File)
	}
	return files, nil
}

func manifest(cfg *config.Cluster, ca SigningCA, render renderer) (staticpod.Manifest, error) {
	pod, err := render(cfg, ca)
	if err != nil {
		return staticpod.Manifest{}, err
	}
	return staticpod.New(cfg, pod)
}

func apiServer(cfg *config.Cluster, _ SigningCA) (*corev1.Pod, error) {
	v, err := apiServerValues(cfg)
	if err != nil {
		return nil, fmt.Errorf("planning kube-apiserver: %w", err)
	}
	pod, err := templates.APIServer(v)
	if err != nil {
		return nil, fmt.Errorf("rendering kube-apiserver: %w", err)
	}
	return pod, nil
}

func controllerManager(cfg *config.Cluster, ca SigningCA) (*corev1.Pod, error) {
	v, err := controllerManagerValues(cfg, ca)
	if err != nil {
		return nil, fmt.Errorf("planning kube-controller-manager: %w", err)
	}
	pod, err := templates.ControllerManager(v)
	if err != nil {
		return nil, fmt.Errorf("rendering kube-controller-manager: %w", err)
	}
	return pod, nil
}

func scheduler(cfg *config.Cluster, _ SigningCA) (*corev1.Pod, error) {
	v, err := schedulerValues(cfg)
	if err != nil {
		return nil, fmt.Errorf("planning kube-scheduler: %w", err)
	}
	pod, err := templates.Scheduler(v)
	if err != nil {
		return nil, fmt.Errorf("rendering kube-scheduler: %w", err)
	}
	return pod, nil
}

// SigningCA is the pair with which the controller-manager signs certificate requests. Both are "" where the CA's key
// is kept elsewhere; the controller that signs then does not start.
type SigningCA struct{ Cert, Key string }

// LocalCA returns the cluster CA's files, as they are unless the CA is external.
func LocalCA(cfg *config.Cluster) SigningCA {
	return SigningCA{Cert: filepath.Join(cfg.Paths.PKI, "ca.crt"), Key: filepath.Join(cfg.Paths.PKI, "ca.key")}
}

// FindSigningCA looks which of the CA's files there are. A certificate without its key is an external CA. Where
// there is neither, they are yet to be made.
func FindSigningCA(cfg *config.Cluster, files artifact.Store) (SigningCA, error) {
	ca := LocalCA(cfg)
	cert, err := exists(files, ca.Cert)
	if err != nil {
		return SigningCA{}, err
	}
	key, err := exists(files, ca.Key)
	if err != nil {
		return SigningCA{}, err
	}
	if cert && !key {
		return SigningCA{}, nil
	}
	return ca, nil
}

func exists(files artifact.Store, path string) (bool, error) {
	_, err := files.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading %q: %w", path, err)
	}
	return true, nil
}
