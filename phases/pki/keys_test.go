package pki_test

import (
	"context"
	"crypto"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
)

func TestGenerateKey(t *testing.T) {
	for alg, want := range map[config.KeyAlgorithm]string{
		config.RSA2048: "RSA 2048", config.RSA3072: "RSA 3072", config.RSA4096: "RSA 4096",
		config.ECDSAP256: "ECDSA P-256", config.ECDSAP384: "ECDSA P-384",
	} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			key, err := pki.GenerateKey(alg)
			if err != nil {
				t.Fatal(err)
			}
			data, err := pki.EncodeKey(key)
			if err != nil {
				t.Fatal(err)
			}
			if got := describeKey(t, data); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	if _, err := pki.GenerateKey("DSA"); err == nil || !strings.Contains(err.Error(), `"DSA"`) {
		t.Errorf("an unknown algorithm gives %v", err)
	}
}

// The searches for RSA keys run beside each other, and no more are started than were expected.
func TestKeysLooksAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most, total := 0, 0, 0
		slow := func(config.KeyAlgorithm) (crypto.Signer, error) {
			mu.Lock()
			running, total = running+1, total+1
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second) // of the bubble's clock
			mu.Lock()
			running--
			mu.Unlock()
			return nil, nil
		}
		keys := pki.NewKeys(slow, 6, 3)
		start := time.Now()
		for range 6 {
			if _, err := keys.Next(t.Context(), config.RSA2048); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("six keys, three at a time, took %v, want 2s", got)
		}
		if most != 3 || total != 6 {
			t.Errorf("%d at a time and %d in all, want 3 and 6", most, total)
		}
		if _, err := keys.Next(t.Context(), config.RSA2048); err != nil || total != 7 {
			t.Errorf("a seventh key: %v, %d in all", err, total)
		}
	})
}

func TestKeysEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		keys := pki.NewKeys(func(config.KeyAlgorithm) (crypto.Signer, error) {
			<-release
			return nil, nil
		}, 1, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := keys.Next(ctx, config.RSA4096); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
