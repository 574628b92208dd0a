package kubeconfig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// groupName is the phase that all of this package's steps belong to.
const groupName = "kubeconfig"

// New returns the phase "kubeconfig" with one step per file.
func New() phases.Phase {
	return NewWith(pki.NewKeys(pki.GenerateKey, len(Table()), 2*runtime.GOMAXPROCS(0)))
}

// NewWith is New with the private keys taken from keys.
func NewWith(keys *pki.Keys) phases.Phase {
	group := phases.Phase{
		Name:  groupName,
		Short: "Kubeconfig files of the control plane and its administrators",
		Long: "Makes the kubeconfig files, each with a client certificate of its own from the cluster's authority.\n" +
			"What is there and sound is used; an expired client certificate is renewed.",
	}
	for _, s := range Table() {
		group.Phases = append(group.Phases, phases.Phase{
			Name:  s.Name,
			Short: "The kubeconfig of the " + s.Long,
			Long:  fmt.Sprintf("Makes %s for the %s.", s.File, s.Long),
			Run:   func(ctx context.Context, env *phases.Env) error { return run(ctx, env, s.Name, keys) },
		})
	}
	return group
}

func run(ctx context.Context, env *phases.Env, name string, keys *pki.Keys) error {
	a, err := pki.LoadAuthority(env.Files, env.Config.Paths, env.Now())
	if err != nil {
		return err
	}
	want := Want(env.Config, env.Now())
	for _, w := range want {
		if w.Name != name {
			continue
		}
		data, have, err := read(env.Files, w.Path)
		if err != nil {
			return err
		}
		d := Decide(w, have, a, env.Now())
		switch {
		case d.Action == pki.Refuse && have == nil:
			return missing(env.Files, want, a.KeyPath)
		case d.Action == pki.Refuse:
			return d.Err
		case d.Action == pki.Reuse:
			return nil
		}
		return issue(ctx, env, d, data, a, keys)
	}
	return nil
}

// missing names all files that a person has to bring, so that they are brought at once.
func missing(files artifact.Store, want []Wanted, authorityKey string) error {
	var paths []string
	for _, w := range want {
		if _, err := files.ReadFile(w.Path); errors.Is(err, fs.ErrNotExist) {
			paths = append(paths, w.Path)
		}
	}
	return fmt.Errorf("%q is not here, so the kubeconfig files must be: missing %s; make them where that key is kept and bring them",
		authorityKey, strings.Join(paths, ", "))
}

// read returns a kubeconfig as it is on disk and its current context; nil where there is none.
func read(files artifact.Store, path string) ([]byte, *Existing, error) {
	readFile := func(path string) ([]byte, error) {
		f, err := files.ReadFile(path)
		return f.Data, err
	}
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var have Existing
	have.Cluster, have.User, have.Err = document.Load(data, filepath.Dir(path), readFile)
	return data, &have, nil
}

func issue(ctx context.Context, env *phases.Env, d Decision, current []byte, a *pki.Authority, keys *pki.Keys) error {
	key, err := keys.Next(ctx, env.Config.KeyAlgorithm)
	if err != nil {
		return err
	}
	cert, err := a.Issue(d.Request, key.Public())
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	var data []byte
	if d.Action == pki.Reissue {
		data, err = document.Renew(current, a.CertPEM(), cert, keyPEM)
	} else {
		data, err = document.New(d.Cluster, d.Server, d.Request.CommonName, a.CertPEM(), cert, keyPEM).Marshal()
	}
	if err != nil {
		return fmt.Errorf("kubeconfig %q: %w", d.Path, err)
	}
	if err := env.Files.Put(artifact.File{Path: d.Path, Data: data, Mode: 0o600, Secret: true}); err != nil {
		return err
	}
	if d.Action == pki.Reissue {
		env.Report(phases.Event{Kind: phases.Note, Text: fmt.Sprintf("renewed %q: %s", d.Path, d.Reason)})
	}
	return nil
}
