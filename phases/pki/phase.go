package pki

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"time"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

// groupName is the phase that all of this package's steps belong to.
const groupName = "certs"

// New returns the phase "certs" with one step per certificate and one for the service account keys.
func New() phases.Phase {
	// Finding an RSA key takes a time that varies greatly; two searches per core keep all cores busy.
	return NewWith(NewKeys(GenerateKey, len(Table())+1, 2*runtime.GOMAXPROCS(0)))
}

// NewWith is New with the private keys taken from keys.
func NewWith(keys *Keys) phases.Phase {
	group := phases.Phase{
		Name:  groupName,
		Short: "Certificates and keys of the control plane",
		Long: "Makes the certificate authorities, the certificates that they sign, and the service account keys, below the certificates directory.\n" +
			"What is there and sound is used; a certificate that expired or does not cover what is wanted is issued again.",
	}
	for _, s := range Table() {
		group.Phases = append(group.Phases, phases.Phase{
			Name:  s.Name,
			Short: "The " + s.Long,
			Long:  fmt.Sprintf("Makes the %s: %s.crt and %s.key.", s.Long, s.Base, s.Base),
			Run:   func(ctx context.Context, env *phases.Env) error { return run(ctx, env, s, keys) },
		})
	}
	group.Phases = append(group.Phases, phases.Phase{
		Name:  serviceAccount,
		Short: "The key pair that signs service account tokens",
		Long:  "Makes the key pair that signs service account tokens: sa.key and sa.pub.",
		Run:   func(ctx context.Context, env *phases.Env) error { return runServiceAccount(ctx, env, keys) },
	})
	return group
}

func run(ctx context.Context, env *phases.Env, s Spec, keys *Keys) error {
	if s.NeedsLocalEtcd() && env.Config.Etcd.Local == nil {
		if s.IsAuthority() {
			note(env, "etcd is external: its certificates are not made here")
		}
		return nil
	}
	all := Want(env.Config, env.Now())
	d, err := decideOne(s, all, env)
	if err != nil {
		return err
	}
	switch d.Action {
	case Refuse:
		return d.Err
	case Reuse:
		if s.IsAuthority() && d.authority.Key == nil {
			note(env, fmt.Sprintf("%q is not here: the certificates that it signs are used as they are", d.Pair.KeyPath))
		}
		return nil
	}
	return issue(ctx, env, d, keys)
}

// decideOne judges s, together with the certificates that bear on it: an authority's leaves, a leaf's authority.
func decideOne(s Spec, all []Wanted, env *phases.Env) (Decision, error) {
	family := func(w Wanted) bool { return w.Name == s.Name || w.Name == s.CA || w.CA == s.Name }
	d, err := decideAmong(family, s, all, env)
	if err != nil || d.Action != Refuse || s.IsAuthority() {
		return d, err
	}
	// Tell all that is missing at once, not one leaf at a time.
	return decideAmong(func(w Wanted) bool { return w.Name == s.CA || w.CA == s.CA }, s, all, env)
}

func decideAmong(include func(Wanted) bool, s Spec, all []Wanted, env *phases.Env) (Decision, error) {
	var want []Wanted
	disk := map[string]Pair{}
	for _, w := range all {
		if !include(w) {
			continue
		}
		p, err := readPair(env.Files.ReadFile, w.Spec, env.Config.Paths.PKI)
		if err != nil {
			return Decision{}, err
		}
		want, disk[w.Name] = append(want, w), p
	}
	var own, ca Decision
	for _, d := range Decide(want, disk, env.Now()) {
		switch d.Name {
		case s.Name:
			own = d
		case s.CA:
			ca = d
		}
	}
	if ca.Action == Issue {
		return Decision{}, missingAuthority(ca.Pair.CertPath, s.CA)
	}
	return own, nil
}

func missingAuthority(path, name string) error {
	return fmt.Errorf("certificate authority %q is missing; run `slipway init phase %s %s` first", path, groupName, name)
}

func issue(ctx context.Context, env *phases.Env, d Decision, keys *Keys) error {
	key := d.key
	if key == nil {
		var err error
		if key, err = keys.Next(ctx, env.Config.KeyAlgorithm); err != nil {
			return err
		}
	}
	var cert []byte
	var err error
	if d.IsAuthority() {
		cert, err = issueAuthority(d.Request, key)
	} else {
		cert, err = d.authority.Issue(d.Request, key.Public())
	}
	if err != nil {
		return err
	}
	if err := putPair(env.Files, d, key, cert); err != nil {
		return err
	}
	switch {
	case d.Action == Reissue:
		note(env, fmt.Sprintf("renewed %q: %s", d.Pair.CertPath, d.Reason))
	case d.Reason != "":
		note(env, fmt.Sprintf("issued %q to the key that was there: %s", d.Pair.CertPath, d.Reason))
	}
	return nil
}

// putPair writes in the order that a crash in between does not harm: a key without its certificate is completed by the
// next run, a certificate without its key is replaced.
func putPair(files artifact.Store, d Decision, key crypto.Signer, cert []byte) error {
	certFile := artifact.File{Path: d.Pair.CertPath, Data: cert, Mode: 0o644}
	if d.key != nil {
		return files.Put(certFile)
	}
	data, err := EncodeKey(key)
	if err != nil {
		return err
	}
	keyFile := artifact.File{Path: d.Pair.KeyPath, Data: data, Mode: 0o600, Secret: true}
	order := []artifact.File{keyFile, certFile}
	if d.Action == Reissue {
		order = []artifact.File{certFile, keyFile}
	}
	for _, f := range order {
		if err := files.Put(f); err != nil {
			return err
		}
	}
	return nil
}

// readPair reads a certificate and its key; a file that is not there is nil.
func readPair(read func(string) (artifact.File, error), s Spec, dir string) (Pair, error) {
	p := Pair{CertPath: s.CertPath(dir), KeyPath: s.KeyPath(dir)}
	var err error
	if p.Cert, err = readIfThere(read, p.CertPath); err != nil {
		return Pair{}, err
	}
	p.Key, err = readIfThere(read, p.KeyPath)
	return p, err
}

func readIfThere(read func(string) (artifact.File, error), path string) ([]byte, error) {
	f, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err // names the path
	}
	if f.Data == nil {
		return []byte{}, nil // there, and empty
	}
	return f.Data, nil
}

// LoadAuthority returns the cluster's own authority, "ca", for certificates that the table does not name. Its Key is
// nil where the key is kept elsewhere. An authority that is missing, expired or damaged is an error.
func LoadAuthority(files artifact.Store, paths config.Paths, now time.Time) (*Authority, error) {
	s := Table()[0]
	p, err := readPair(files.ReadFile, s, paths.PKI)
	if err != nil {
		return nil, err
	}
	if p.Cert == nil {
		return nil, missingAuthority(p.CertPath, s.Name)
	}
	return loadAuthority(p, now)
}

func note(env *phases.Env, text string) { env.Report(phases.Event{Kind: phases.Note, Text: text}) }
