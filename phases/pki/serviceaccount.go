package pki

import (
	"context"
	"crypto"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
)

// serviceAccountDecision is what to do about sa.key and sa.pub.
type serviceAccountDecision struct {
	action Action        // Issue writes what is missing
	key    crypto.Signer // on disk; nil asks for a fresh one
	err    error         // for Refuse
}

// decideServiceAccount judges the key pair; p's Cert stands for the public key. The private key is never replaced:
// every token in the cluster would lose its worth.
func decideServiceAccount(p Pair) serviceAccountDecision {
	refuse := func(format string, args ...any) serviceAccountDecision {
		return serviceAccountDecision{action: Refuse, err: fmt.Errorf(format, args...)}
	}
	if p.Key == nil {
		if p.Cert != nil {
			return refuse("public key %q is there without its private key %q; bring the private key, or remove %q to have a new pair made", p.CertPath, p.KeyPath, p.CertPath)
		}
		return serviceAccountDecision{action: Issue}
	}
	key, err := ParseKey(p.Key)
	if err != nil {
		return refuse("reading %q: %w; restore it from a backup, or remove it and %q to have a new pair made, which makes all tokens invalid", p.KeyPath, err, p.CertPath)
	}
	if p.Cert == nil {
		return serviceAccountDecision{action: Issue, key: key}
	}
	pubs, err := parsePublicKeys(p.Cert)
	if err != nil {
		return refuse("reading %q: %w; remove it to have it derived from %q", p.CertPath, err, p.KeyPath)
	}
	if !slices.ContainsFunc(pubs, func(pub crypto.PublicKey) bool { return samePublicKey(key, pub) }) {
		return refuse("public key %q and private key %q do not belong together; bring the matching pair, or remove %q to have it derived", p.CertPath, p.KeyPath, p.CertPath)
	}
	return serviceAccountDecision{action: Reuse, key: key}
}

// readServiceAccount returns the key pair, with the public key as Cert.
func readServiceAccount(files artifact.Store, dir string) (Pair, error) {
	p := Pair{CertPath: filepath.Join(dir, serviceAccount+".pub"), KeyPath: filepath.Join(dir, serviceAccount+".key")}
	var err error
	if p.Cert, err = readIfThere(files.ReadFile, p.CertPath); err != nil {
		return Pair{}, err
	}
	p.Key, err = readIfThere(files.ReadFile, p.KeyPath)
	return p, err
}

func runServiceAccount(ctx context.Context, env *phases.Env, keys *Keys) error {
	p, err := readServiceAccount(env.Files, env.Config.Paths.PKI)
	if err != nil {
		return err
	}
	d := decideServiceAccount(p)
	switch d.action {
	case Refuse:
		return d.err
	case Reuse:
		return nil
	}
	if d.key == nil {
		if d.key, err = keys.Next(ctx, env.Config.KeyAlgorithm); err != nil {
			return err
		}
		data, err := EncodeKey(d.key)
		if err != nil {
			return err
		}
		if err := env.Files.Put(artifact.File{Path: p.KeyPath, Data: data, Mode: 0o600, Secret: true}); err != nil {
			return err
		}
	} else {
		note(env, fmt.Sprintf("derived %q from %q", p.CertPath, p.KeyPath))
	}
	pub, err := encodePublicKey(d.key.Public())
	if err != nil {
		return err
	}
	// 0600 although it is no secret: kubeadm's mode.
	return env.Files.Put(artifact.File{Path: p.CertPath, Data: pub, Mode: 0o600})
}
