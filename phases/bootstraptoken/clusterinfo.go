package bootstraptoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
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

// clusterInfo returns the ConfigMap, without the signatures: they are the controller manager's.
func clusterInfo(c document.Cluster) (*unstructured.Unstructured, error) {
	// As kubeadm writes it: a kubeconfig with a cluster that has no name, no users and no contexts.
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "preferences": map[string]any{}, "contexts": nil, "current-context": "", "users": nil,
		"clusters": []any{map[string]any{"name": "", "cluster": map[string]any{
			"server": c.Server, "certificate-authority-data": c.CertificateAuthorityData}}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the kubeconfig of cluster-info: %w", err)
	}
	r := infoRef()
	return objects.ConfigMap(r.Namespace, r.Name, map[string]string{"kubeconfig": string(data)}, nil), nil
}

// Signed reports whether cluster-info has a signature that holds for the token: a detached JWS, HMAC with SHA-256.
func Signed(info *unstructured.Unstructured, t config.BootstrapToken) bool {
	data, _, _ := unstructured.NestedStringMap(info.Object, "data")
	parts := strings.Split(data[signaturePrefix+t.ID], ".")
	if len(parts) != 3 || parts[1] != "" {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	mac := hmac.New(sha256.New, []byte(t.Secret))
	mac.Write([]byte(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(data["kubeconfig"]))))
	return hmac.Equal(signature, mac.Sum(nil))
}
