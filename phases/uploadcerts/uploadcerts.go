// Package uploadcerts puts the certificate authorities into the cluster, encrypted, for further control-plane nodes.
package uploadcerts

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/clusteradmins"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/objects"
)

//go:embed uploadcerts.yaml
var roles string

const (
	namespace, name = "kube-system", "kubeadm-certs"
	// lifetime is how long the certificates stay in the cluster. kubeadm v1.36.3 constants.DefaultCertTokenDuration.
	lifetime = 2 * time.Hour
	// keySize makes it AES-256.
	keySize = 32
)

// New returns the phase.
func New() phases.Phase {
	return phases.Phase{
		Name:  "upload-certs",
		Short: "Put the certificate authorities into the cluster, encrypted, with --upload-certs",
		Long: "Encrypts the certificate authorities and the keys of service accounts with the certificate key and puts them into the\n" +
			"Secret kubeadm-certs, where kubeadm join --control-plane finds them. The Secret is gone after two hours: it belongs to a\n" +
			"bootstrap token that is good for nothing else. Does nothing without --upload-certs.",
		Begin: run, BeginAfter: []string{clusteradmins.Name},
	}
}

func run(ctx context.Context, env *phases.Env) error {
	if !env.Config.UploadCerts {
		return nil
	}
	key := make([]byte, keySize)
	rand.Read(key) // never fails
	if given := env.Config.CertificateKey; given != "" {
		var err error
		if key, err = hex.DecodeString(given); err != nil || len(key) != keySize {
			return errors.New("the certificate key is not 64 hexadecimal digits: slipway certs certificate-key makes one")
		}
	}
	files, err := read(env.Files, env.Config)
	if err != nil {
		return err
	}
	if env.Join != nil {
		env.Join.CertificateKey = hex.EncodeToString(key)
	}
	if done, err := uploaded(ctx, env, files, key); err != nil || done {
		return err
	}
	owner, err := putToken(ctx, env)
	if err != nil {
		return err
	}
	secret, err := Secret(files, key)
	if err != nil {
		return err
	}
	owner.own(secret)
	list, err := objects.Render(roles, nil)
	if err != nil {
		return err
	}
	return objects.Apply(ctx, env, append(list, secret)...)
}

// uploaded reports whether these contents are in the cluster, under this key, for at least half of their time.
func uploaded(ctx context.Context, env *phases.Env, want map[string][]byte, key []byte) (bool, error) {
	ctx, cancel := objects.Within(ctx, env)
	defer cancel()
	secret, err := env.API.Get(ctx, kubeapi.Ref{APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: name})
	if errors.Is(err, kubeapi.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	have, err := Decrypt(secret, key)
	if err != nil || !maps.EqualFunc(have, want, bytes.Equal) {
		return false, nil // under another key, or of before a renewal
	}
	owners := secret.GetOwnerReferences()
	if len(owners) == 0 {
		return true, nil
	}
	token, err := env.API.Get(ctx, kubeapi.Ref{APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: owners[0].Name})
	if err != nil {
		return false, nil // it goes, and the Secret with it
	}
	t, err := bootstraptoken.FromSecret(token)
	return err == nil && t.Expires.Sub(env.Now()) > lifetime/2, nil
}

// Decrypt returns the contents of the Secret. An error says that the key is another one.
func Decrypt(secret *unstructured.Unstructured, key []byte) (map[string][]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("decrypting the certificates: %w", err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("decrypting the certificates: %w", err)
	}
	data, _, err := unstructured.NestedStringMap(secret.Object, "data")
	if err != nil {
		return nil, fmt.Errorf("reading the Secret %s: %w", name, err)
	}
	contents := map[string][]byte{}
	for key, value := range data {
		sealed, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return nil, fmt.Errorf("reading %s of the Secret %s: %w", key, name, err)
		}
		if contents[key] = sealed; len(sealed) == 0 {
			continue
		}
		if contents[key], err = gcm.Open(nil, nil, sealed, nil); err != nil {
			return nil, fmt.Errorf("decrypting %s of the Secret %s: %w", key, name, err)
		}
	}
	return contents, nil
}

// Transferred returns the files that a further control-plane node needs, by their keys in the Secret, which are kubeadm's:
// v1.36.3 cmd/kubeadm/app/phases/copycerts/copycerts.go, certsToTransfer.
func Transferred(c *config.Cluster) map[string]string {
	files := map[string]string{}
	names := []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key"}
	if c.Etcd.External == nil {
		names = append(names, "etcd/ca.crt", "etcd/ca.key")
	} else {
		files["external-etcd-ca.crt"] = c.Etcd.External.CAFile
		files["external-etcd.crt"] = c.Etcd.External.CertFile
		files["external-etcd.key"] = c.Etcd.External.KeyFile
	}
	for _, name := range names {
		files[strings.ReplaceAll(name, "/", "-")] = filepath.Join(c.Paths.PKI, name)
	}
	return files
}

// read returns the contents of the files, by their keys. One that is not here, as the key of an authority that is kept
// elsewhere, is empty.
func read(files artifact.Store, c *config.Cluster) (map[string][]byte, error) {
	contents := map[string][]byte{}
	for key, path := range Transferred(c) {
		contents[key] = nil
		if path == "" {
			continue
		}
		f, err := files.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		contents[key] = f.Data
	}
	return contents, nil
}

// Secret returns the Secret with the contents encrypted: AES-256-GCM, the nonce first.
func Secret(contents map[string][]byte, key []byte) (*unstructured.Unstructured, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("encrypting the certificates: %w", err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("encrypting the certificates: %w", err)
	}
	data := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		data[name] = ""
		if plain := contents[name]; len(plain) > 0 {
			data[name] = base64.StdEncoding.EncodeToString(gcm.Seal(nil, nil, plain, nil))
		}
	}
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
		"metadata": map[string]any{"namespace": namespace, "name": name}, "data": data}}, nil
}

// owner is the token that the Secret goes with.
type owner struct{ name, uid string }

func (o owner) own(secret *unstructured.Unstructured) {
	if o.uid == "" {
		return // nothing was made
	}
	// Set by hand: the accessor would add fields that are not ours to set.
	unstructured.SetNestedSlice(secret.Object, []any{map[string]any{"apiVersion": "v1", "kind": "Secret", "name": o.name, "uid": o.uid,
		"controller": true, "blockOwnerDeletion": true}}, "metadata", "ownerReferences")
}

// putToken makes the token whose end is the Secret's. The token cleaner of the controller manager deletes it, and the
// garbage collector the Secret.
func putToken(ctx context.Context, env *phases.Env) (owner, error) {
	ctx, cancel := objects.Within(ctx, env)
	defer cancel()
	id, secret := bootstraptoken.Generate()
	t := config.BootstrapToken{ID: id, Secret: secret, Description: "Ends the Secret kubeadm-certs with its own end."}
	if err := env.API.Create(ctx, bootstraptoken.Secret(t, env.Now().Add(lifetime)), objects.Tell(env)); err != nil {
		return owner{}, err
	}
	made, err := env.API.Get(ctx, bootstraptoken.Ref(id))
	if errors.Is(err, kubeapi.ErrNotFound) {
		return owner{}, nil
	}
	if err != nil {
		return owner{}, err
	}
	return owner{made.GetName(), string(made.GetUID())}, nil
}
