package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"sync"

	"github.com/slipway-k8s/slipway/phases/config"
)

// Generate makes one private key.
type Generate func(config.KeyAlgorithm) (crypto.Signer, error)

// GenerateKey makes a private key of any of kubeadm's algorithms.
func GenerateKey(alg config.KeyAlgorithm) (crypto.Signer, error) {
	switch alg {
	case config.ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case config.ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case config.RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case config.RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case config.RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("generating a key: encryptionAlgorithm %q is not one of %s, %s, %s, %s, %s", alg,
		config.RSA2048, config.RSA3072, config.RSA4096, config.ECDSAP256, config.ECDSAP384)
}

// Keys hands out fresh private keys. RSA keys take long to find, and each step of a group asks for its key only when
// it is that step's turn. So Keys looks ahead: once the first RSA key is asked for, the following ones are searched for
// on the other cores, as many as were said to be expected. A search cannot be stopped, but ends by itself within
// seconds and leaves nothing behind; after a step that ran alone, what was ahead is thrown away.
//
// Keys may be used by several goroutines.
type Keys struct {
	generate Generate
	ahead    int // searches at the same time

	mu       sync.Mutex
	expected int // keys that may still be started ahead of being asked for
	alg      config.KeyAlgorithm
	started  []chan found
}

type found struct {
	key crypto.Signer
	err error
}

// NewKeys returns a source of keys, of which about expected will be asked for. Up to ahead RSA keys are made at the
// same time.
func NewKeys(generate Generate, expected, ahead int) *Keys {
	return &Keys{generate: generate, expected: expected, ahead: ahead}
}

// Next returns a key that nobody else has. It returns early, with ctx's error, when ctx ends.
func (k *Keys) Next(ctx context.Context, alg config.KeyAlgorithm) (crypto.Signer, error) {
	if alg == config.ECDSAP256 || alg == config.ECDSAP384 {
		return k.generate(alg) // microseconds
	}
	select {
	case f := <-k.take(alg):
		return f.key, f.err
	case <-ctx.Done():
		return nil, fmt.Errorf("generating a key: %w", ctx.Err())
	}
}

// take starts as many searches as are due and returns the oldest.
func (k *Keys) take(alg config.KeyAlgorithm) <-chan found {
	k.mu.Lock()
	defer k.mu.Unlock()
	if alg != k.alg {
		k.alg, k.started = alg, nil
	}
	for len(k.started) == 0 || len(k.started) < min(k.ahead, len(k.started)+k.expected) {
		k.expected--
		c := make(chan found, 1)
		k.started = append(k.started, c)
		go func() {
			key, err := k.generate(alg)
			c <- found{key, err}
		}()
	}
	first := k.started[0]
	k.started = k.started[1:]
	return first
}
