package mirror

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// kubeconfig is the part of the file format that a node's identity needs.
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string  `json:"name"`
		Cluster cluster `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User user   `json:"user"`
	} `json:"users"`
}

type cluster struct {
	Server        string `json:"server"`
	TLSServerName string `json:"tls-server-name"`
	CAFile        string `json:"certificate-authority"`
	CAData        []byte `json:"certificate-authority-data"`
	ProxyURL      string `json:"proxy-url"`
	Insecure      bool   `json:"insecure-skip-tls-verify"`
}

type user struct {
	CertFile string `json:"client-certificate"`
	CertData []byte `json:"client-certificate-data"`
	KeyFile  string `json:"client-key"`
	KeyData  []byte `json:"client-key-data"`
}

// credentials are whom to talk to, and as whom.
type credentials struct {
	server string // URL without a slash at the end
	proxy  *url.URL
	tls    *tls.Config
	read   []stamped
}

// stamped is a file and its state before it was read: one that is replaced at that moment is another one.
type stamped struct{ file, stamp string }

// readKubeconfig reads the current context of a kubeconfig. Its user must have a client certificate, and not that of
// another node.
func readKubeconfig(path, nodeName string) (*credentials, error) {
	c := &credentials{}
	dir := filepath.Dir(path)
	load := func(file string, data []byte) ([]byte, error) {
		if len(data) > 0 || file == "" {
			return data, nil // as everywhere, data comes before the file
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		c.read = append(c.read, stamped{file, stamp(file)})
		return os.ReadFile(file)
	}
	text, err := load(filepath.Base(path), nil) // beside itself
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	var k kubeconfig
	if err := yaml.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	cl, us, err := k.current()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	ca, caErr := load(cl.CAFile, cl.CAData)
	cert, certErr := load(us.CertFile, us.CertData)
	key, keyErr := load(us.KeyFile, us.KeyData)
	if err := errors.Join(caErr, certErr, keyErr); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	if err := c.fill(cl, ca, cert, key, nodeName); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return c, nil
}

// current returns the cluster and the user of the current context, or of the only one.
func (k *kubeconfig) current() (*cluster, *user, error) {
	name := k.CurrentContext
	if name == "" && len(k.Contexts) == 1 {
		name = k.Contexts[0].Name
	}
	for _, ctx := range k.Contexts {
		if ctx.Name != name {
			continue
		}
		var cl *cluster
		var us *user
		for i := range k.Clusters {
			if k.Clusters[i].Name == ctx.Context.Cluster {
				cl = &k.Clusters[i].Cluster
			}
		}
		for i := range k.Users {
			if k.Users[i].Name == ctx.Context.User {
				us = &k.Users[i].User
			}
		}
		if cl == nil || us == nil {
			return nil, nil, fmt.Errorf("context %q names cluster %q and user %q, and not both are in the file", name, ctx.Context.Cluster, ctx.Context.User)
		}
		return cl, us, nil
	}
	return nil, nil, fmt.Errorf("there is no context %q: set current-context", name)
}

func (c *credentials) fill(cl *cluster, ca, cert, key []byte, nodeName string) error {
	if cl.Insecure {
		return errors.New("insecure-skip-tls-verify: a node must know its API server, give certificate-authority instead")
	}
	at, err := url.Parse(cl.Server)
	if err != nil || at.Scheme != "https" || at.Host == "" {
		return fmt.Errorf("server %q is not an https URL", cl.Server)
	}
	c.server = strings.TrimRight(cl.Server, "/")
	if cl.ProxyURL != "" {
		if c.proxy, err = url.Parse(cl.ProxyURL); err != nil {
			return fmt.Errorf("proxy-url: %w", err)
		}
	}
	if len(cert) == 0 || len(key) == 0 {
		return errors.New("its user has no client-certificate and client-key; nothing else is taken from a node")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	const nodeUser = "system:node:"
	if name, isNode := strings.CutPrefix(pair.Leaf.Subject.CommonName, nodeUser); isNode && name != nodeName {
		return fmt.Errorf("its certificate is node %q's, and this node is called %q: give --node-name %s, or the kubeconfig of this node", name, nodeName, name)
	}
	c.tls = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ServerName: cl.TLSServerName}
	if len(ca) > 0 { // else the authorities of the system
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM(ca) {
			return fmt.Errorf("%s: no certificate in it", cmp.Or(cl.CAFile, "certificate-authority-data"))
		}
	}
	return nil
}

// explain adds to a failure that the client certificate is no longer, or not yet, valid: the server only says that it does
// not know us. Whether that is so is for the server's clock to say, so it is never a reason not to ask.
func (c *credentials) explain(err error, now time.Time) error {
	var lost *lostError
	leaf := c.tls.Certificates[0].Leaf
	switch {
	case !errors.As(err, &lost) && !isCode(err, http.StatusUnauthorized):
		return err
	case now.After(leaf.NotAfter):
		return fmt.Errorf("%w; the client certificate expired at %s", err, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("%w; the client certificate is valid only from %s on", err, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return err
}

// renewed tells whether the files have changed since they were read. A file that is absent is about to be replaced.
func (c *credentials) renewed() bool {
	changed := false
	for _, f := range c.read {
		now := stamp(f.file)
		if now == absent {
			return false
		}
		changed = changed || now != f.stamp
	}
	return changed
}

const absent = "absent"

// stamp changes whenever the file is written or replaced.
func stamp(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return absent
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}
