package bootstraptoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/objects"
)

// infoRef names the ConfigMap that everybody may read: where the cluster is, and its authority, signed with each token.
func infoRef() kubeapi.Ref {
	return kubeapi.Ref{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-public", Name: "cluster-info"}
}

const signaturePrefix = "jws-kubeconfig-"

// Cluster returns where the cluster is and its authority, as admin.conf says. Where that file is not there, as in a
// preview of some phases, only the server is known: nobody can talk to it without the file anyway.
func Cluster(files artifact.Store, c *config.Cluster) (document.Cluster, error) {
	path := c.Paths.Kubeconfig("admin.conf")
	read := func(path string) ([]byte, error) {
		f, err := files.ReadFile(path)
		return f.Data, err
	}
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return document.Cluster{Server: kubeconfig.SharedServer(c)}, nil
	}
	if err != nil {
		return document.Cluster{}, fmt.Errorf("reading where the cluster is: %w", err)
	}
	cluster, _, err := document.Load(data, filepath.Dir(path), read)
	if err != nil {
		return document.Cluster{}, fmt.Errorf("kubeconfig %q: %w", path, err)
	}
	return cluster, nil
}

// clusterInfo returns the ConfigMap, signed with the tokens that are for signing. The controller manager would sign it too,
// some seconds after it leads; nobody could join before.
func clusterInfo(c document.Cluster, tokens []config.BootstrapToken) (*unstructured.Unstructured, error) {
	// As kubeadm writes it: a kubeconfig with a cluster that has no name, no users and no contexts.
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "preferences": map[string]any{}, "contexts": nil, "current-context": "", "users": nil,
		"clusters": []any{map[string]any{"name": "", "cluster": map[string]any{
			"server": c.Server, "certificate-authority-data": c.CertificateAuthorityData}}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the kubeconfig of cluster-info: %w", err)
	}
	contents := map[string]string{"kubeconfig": string(data)}
	for _, t := range signing(tokens) {
		contents[signaturePrefix+t.ID] = Sign(string(data), t)
	}
	r := infoRef()
	return objects.ConfigMap(r.Namespace, r.Name, contents, nil), nil
}

// signing returns the tokens that cluster-info is to be signed with.
func signing(tokens []config.BootstrapToken) []config.BootstrapToken {
	return slices.DeleteFunc(slices.Clone(tokens), func(t config.BootstrapToken) bool { return !slices.Contains(t.Usages, "signing") })
}

// Sign returns the signature of a text with a token, byte for byte the controller manager's, which leaves it alone then:
// k8s.io/cluster-bootstrap v0.36.3 token/jws.
func Sign(text string, t config.BootstrapToken) string {
	header := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"HS256","kid":%q}`, t.ID))
	return header + ".." + base64.RawURLEncoding.EncodeToString(signature(header, text, t.Secret))
}

// signature is a JWS's third part: HMAC with SHA-256 over the first two, of which the second is cut out of what is kept.
func signature(header, text, secret string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(header + "." + base64.RawURLEncoding.EncodeToString([]byte(text))))
	return mac.Sum(nil)
}

// Signed reports whether cluster-info has a signature that holds for the token: a detached JWS, HMAC with SHA-256.
func Signed(info *unstructured.Unstructured, t config.BootstrapToken) bool {
	data, _, _ := unstructured.NestedStringMap(info.Object, "data")
	parts := strings.Split(data[signaturePrefix+t.ID], ".")
	if len(parts) != 3 || parts[1] != "" {
		return false
	}
	found, err := base64.RawURLEncoding.DecodeString(parts[2])
	return err == nil && hmac.Equal(found, signature(parts[0], data["kubeconfig"], t.Secret))
}
