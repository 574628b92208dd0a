// Package document reads and writes kubeconfig files.
package document

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"
)

// Config is a kubeconfig file, v1 Config: the parts that slipway looks at.
type Config struct {
	APIVersion     string         `json:"apiVersion"`
	Clusters       []NamedCluster `json:"clusters"`
	Contexts       []NamedContext `json:"contexts"`
	CurrentContext string         `json:"current-context"`
	Kind           string         `json:"kind"`
	Users          []NamedUser    `json:"users"`
}

// NamedCluster is an API server and how to trust it.
type NamedCluster struct {
	Name    string  `json:"name"`
	Cluster Cluster `json:"cluster"`
}

// Cluster holds its authority as PEM, or the path of a file of that.
type Cluster struct {
	Server                   string `json:"server"`
	CertificateAuthority     string `json:"certificate-authority,omitempty"`
	CertificateAuthorityData []byte `json:"certificate-authority-data,omitempty"`
}

// NamedContext joins a user to a cluster.
type NamedContext struct {
	Name    string  `json:"name"`
	Context Context `json:"context"`
}

// Context names one of the file's clusters and one of its users.
type Context struct {
	Cluster string `json:"cluster"`
	User    string `json:"user"`
}

// NamedUser is a user and the credentials.
type NamedUser struct {
	Name string `json:"name"`
	User User   `json:"user"`
}

// User holds a certificate and its key as PEM, or the paths of files of those, or credentials of another kind.
type User struct {
	ClientCertificate     string          `json:"client-certificate,omitempty"`
	ClientCertificateData []byte          `json:"client-certificate-data,omitempty"`
	ClientKey             string          `json:"client-key,omitempty"`
	ClientKeyData         []byte          `json:"client-key-data,omitempty"`
	Token                 string          `json:"token,omitempty"`
	TokenFile             string          `json:"tokenFile,omitempty"`
	Username              string          `json:"username,omitempty"`
	Exec                  json.RawMessage `json:"exec,omitempty"`
	AuthProvider          json.RawMessage `json:"auth-provider,omitempty"`
}

// HasOtherCredentials reports whether the user is known by something else than a certificate.
func (u User) HasOtherCredentials() bool {
	return u.Token != "" || u.TokenFile != "" || u.Username != "" || given(u.Exec) || given(u.AuthProvider)
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// New returns a file with one cluster, one user with a client certificate, and the context that joins them, named as
// kubeadm does: USER@CLUSTER. The authority, certificate and key are PEM.
func New(cluster, server, user string, authority, cert, key []byte) Config {
	context := user + "@" + cluster
	return Config{
		APIVersion:     "v1",
		Kind:           "Config",
		Clusters:       []NamedCluster{{cluster, Cluster{Server: server, CertificateAuthorityData: authority}}},
		Contexts:       []NamedContext{{context, Context{Cluster: cluster, User: user}}},
		CurrentContext: context,
		Users:          []NamedUser{{user, User{ClientCertificateData: cert, ClientKeyData: key}}},
	}
}

// Marshal returns the file's bytes: keys sorted, the same for the same contents.
func (c Config) Marshal() ([]byte, error) {
	data, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encoding a kubeconfig: %w", err)
	}
	return data, nil
}

// Parse reads a kubeconfig. Fields that slipway does not look at are passed over.
func Parse(data []byte) (Config, error) {
	var c Config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("it is not a kubeconfig: %w", err)
	}
	if c.Kind != "Config" {
		return Config{}, fmt.Errorf("it is not a kubeconfig: its kind is %q, not %q", c.Kind, "Config")
	}
	return c, nil
}

// Load reads a kubeconfig and returns the cluster and the user of its current context, with the files that they name
// read into them. Relative paths start at dir, the kubeconfig's own directory.
func Load(data []byte, dir string, read func(string) ([]byte, error)) (Cluster, NamedUser, error) {
	c, err := Parse(data)
	if err != nil {
		return Cluster{}, NamedUser{}, err
	}
	named, user, err := c.current()
	if err != nil {
		return Cluster{}, NamedUser{}, err
	}
	cluster := named.Cluster
	for _, f := range []struct {
		path *string
		data *[]byte
	}{
		{&cluster.CertificateAuthority, &cluster.CertificateAuthorityData},
		{&user.User.ClientCertificate, &user.User.ClientCertificateData},
		{&user.User.ClientKey, &user.User.ClientKeyData},
	} {
		if *f.path == "" || len(*f.data) > 0 {
			continue
		}
		path := *f.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if *f.data, err = read(path); err != nil {
			return Cluster{}, NamedUser{}, fmt.Errorf("it names a file: %w", err)
		}
		*f.path = ""
	}
	return cluster, user, nil
}

func (c Config) current() (NamedCluster, NamedUser, error) {
	i := slices.IndexFunc(c.Contexts, func(n NamedContext) bool { return n.Name == c.CurrentContext })
	if i < 0 {
		return NamedCluster{}, NamedUser{}, fmt.Errorf("its current-context %q is not among its contexts", c.CurrentContext)
	}
	ctx := c.Contexts[i].Context
	cluster := slices.IndexFunc(c.Clusters, func(n NamedCluster) bool { return n.Name == ctx.Cluster })
	if cluster < 0 {
		return NamedCluster{}, NamedUser{}, fmt.Errorf("the cluster %q of its current-context %q is not among its clusters", ctx.Cluster, c.CurrentContext)
	}
	user := slices.IndexFunc(c.Users, func(n NamedUser) bool { return n.Name == ctx.User })
	if user < 0 {
		return NamedCluster{}, NamedUser{}, fmt.Errorf("the user %q of its current-context %q is not among its users", ctx.User, c.CurrentContext)
	}
	return c.Clusters[cluster], c.Users[user], nil
}

// Renew returns the kubeconfig with another authority for its current context's cluster and another certificate and key
// for its user, all as PEM, and all else as it was, be it known to slipway or not. Comments are lost.
func Renew(data, authority, cert, key []byte) ([]byte, error) {
	c, err := Parse(data)
	if err != nil {
		return nil, err
	}
	cluster, user, err := c.current()
	if err != nil {
		return nil, err
	}
	var file map[string]any
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("it is not a kubeconfig: %w", err)
	}
	// Bytes are encoded as base64.
	set(file, "clusters", cluster.Name, "cluster", map[string]any{"certificate-authority": nil, "certificate-authority-data": authority})
	set(file, "users", user.Name, "user", map[string]any{
		"client-certificate": nil, "client-certificate-data": cert, "client-key": nil, "client-key-data": key,
	})
	out, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("encoding a kubeconfig: %w", err)
	}
	return out, nil
}

// Retrust returns the kubeconfig with another authority, as PEM, for each of its clusters, and all else as it was. One that
// has it already is returned as it is, to the byte; comments of another are lost.
func Retrust(data, authority []byte) ([]byte, error) {
	c, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if len(c.Clusters) == 0 {
		return nil, errors.New("it has no cluster")
	}
	if !slices.ContainsFunc(c.Clusters, func(n NamedCluster) bool {
		return n.Cluster.CertificateAuthority != "" || !bytes.Equal(n.Cluster.CertificateAuthorityData, authority)
	}) {
		return data, nil
	}
	var file map[string]any
	if err := yaml.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("it is not a kubeconfig: %w", err)
	}
	for _, n := range c.Clusters {
		set(file, "clusters", n.Name, "cluster", map[string]any{"certificate-authority": nil, "certificate-authority-data": authority})
	}
	out, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("encoding a kubeconfig: %w", err)
	}
	return out, nil
}

// set changes fields of the named entry of a list; nil removes a field.
func set(file map[string]any, list, name, part string, fields map[string]any) {
	entries, _ := file[list].([]any)
	for _, entry := range entries {
		e, _ := entry.(map[string]any)
		target, ok := e[part].(map[string]any)
		if e["name"] != name || !ok {
			continue
		}
		for k, v := range fields {
			if target[k] = v; v == nil {
				delete(target, k)
			}
		}
		return // the first of that name, as current takes
	}
}
