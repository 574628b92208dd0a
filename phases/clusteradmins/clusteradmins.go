// Package clusteradmins holds the phase that gives admin.conf its rights.
package clusteradmins

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/objects"
)

//go:embed clusteradmins.yaml
var manifests string

// Name is the phase's name. What begins after it may use admin.conf.
const Name = "cluster-admins"

// New returns the phase. kubeadm does the same without a name of its own, when it first uses admin.conf.
func New() phases.Phase {
	return phases.Phase{
		Name:  Name,
		Short: "Give admin.conf its rights",
		Long: "Binds the group kubeadm:cluster-admins, which the user of admin.conf is in, to the role cluster-admin. It is the only phase\n" +
			"that needs super-admin.conf; where that has been taken away, it does with the rights that admin.conf has.",
		Run: run,
	}
}

func run(ctx context.Context, env *phases.Env) error {
	list, err := objects.Render(manifests, nil)
	if err != nil {
		return err
	}
	path := env.Config.Paths.Kubeconfig("super-admin.conf")
	switch _, err := env.Files.ReadFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := objects.Apply(ctx, env, list...); err != nil {
			return fmt.Errorf("%w\n%q, which could do it in any case, is not here", err, path)
		}
		return nil
	case err != nil:
		return err
	}
	return objects.ApplyAs(ctx, env, env.API.AsSuperAdmin(), list...)
}
