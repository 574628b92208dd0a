// Package plane reads off the manifests on disk what control plane a node has, whoever wrote or edited them.
package plane

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

// The components, in the order in which they start. They are stopped the other way round: an API server whose etcd is
// gone hangs at SIGTERM for a minute.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

// Components returns the names of all of them, in the order in which they start.
func Components() []string { return []string{Etcd, APIServer, ControllerManager, Scheduler} }

// Component is one component as its manifest has it.
type Component struct {
	File  artifact.File
	Pod   *corev1.Pod
	Image string
	Args  []string // of its first container, command and args together
}

// Flag returns the last value of a flag, and whether it is set.
func (c *Component) Flag(name string) (string, bool) {
	if c == nil {
		return "", false
	}
	value, found := "", false
	for i, a := range c.Args {
		if v, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			value, found = v, true
		} else if a == "--"+name && i+1 < len(c.Args) {
			value, found = c.Args[i+1], true
		}
	}
	return value, found
}

func (c *Component) flag(name string) string {
	v, _ := c.Flag(name)
	return v
}

// Plane is the control plane of a node.
type Plane struct {
	Paths      config.Paths
	Components map[string]*Component // those that have a manifest, by name
	Aside      []string              // names of those whose manifest an interrupted run has put aside

	Address netip.Addr // that the API server advertises
	Port    uint16     // of the API server
	Version string     // of Kubernetes, the tag of the API server's image
	Etcd    EtcdAccess
	Member  *Member // nil where etcd is external
}

// EtcdAccess is how the API server reaches etcd.
type EtcdAccess struct {
	Servers       []string
	CA, Cert, Key string // files; "" for plain http
	Prefix        string // of all keys of the API server
}

// Member is the etcd member on this node.
type Member struct {
	Name     string
	DataDir  string
	Image    string
	PeerURLs []string // that it advertises
}

// Aside returns the directory in which manifests are kept while the control plane is held still.
func Aside(p config.Paths) string { return filepath.Join(p.State, "aside") }

// Read reads the manifests of the node, those that a run has put aside too. Without a manifest of the API server there is
// no control plane, which is an error.
func Read(files artifact.Store, paths config.Paths) (*Plane, error) {
	p := &Plane{Paths: paths, Components: map[string]*Component{}}
	for _, name := range Components() {
		c, err := component(files, filepath.Join(paths.Manifests, name+".yaml"))
		if errors.Is(err, fs.ErrNotExist) {
			if c, err = component(files, filepath.Join(Aside(paths), name+".yaml")); err == nil {
				p.Aside = append(p.Aside, name)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p.Components[name] = c
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	return p, nil
}

func component(files artifact.Store, path string) (*Component, error) {
	f, err := files.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(f)
}

// Parse reads one manifest.
func Parse(f artifact.File) (*Component, error) {
	pod := &corev1.Pod{}
	if err := yaml.Unmarshal(f.Data, pod); err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", f.Path, err)
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("reading the manifest %s: it has no container", f.Path)
	}
	first := pod.Spec.Containers[0]
	return &Component{File: f, Pod: pod, Image: first.Image, Args: append(append([]string(nil), first.Command...), first.Args...)}, nil
}

// settle takes from the manifests what their flags say.
func (p *Plane) settle() error {
	api := p.Components[APIServer]
	if api == nil {
		return fmt.Errorf("there is no control plane here: %s has no kube-apiserver.yaml", p.Paths.Manifests)
	}
	var err error
	if p.Address, err = netip.ParseAddr(api.flag("advertise-address")); err != nil {
		return fmt.Errorf("the manifest %s: --advertise-address: %w", api.File.Path, err)
	}
	p.Port = 6443
	if text, ok := api.Flag("secure-port"); ok {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("the manifest %s: --secure-port: %w", api.File.Path, err)
		}
		p.Port = uint16(port)
	}
	if ca := api.flag("client-ca-file"); filepath.IsAbs(ca) {
		p.Paths.PKI = filepath.Dir(ca)
	}
	p.Version = Tag(api.Image)
	p.Etcd = EtcdAccess{CA: api.flag("etcd-cafile"), Cert: api.flag("etcd-certfile"), Key: api.flag("etcd-keyfile"), Prefix: "/registry"}
	if prefix, ok := api.Flag("etcd-prefix"); ok {
		p.Etcd.Prefix = prefix
	}
	for s := range strings.SplitSeq(api.flag("etcd-servers"), ",") {
		if s != "" {
			p.Etcd.Servers = append(p.Etcd.Servers, s)
		}
	}
	if etcd := p.Components[Etcd]; etcd != nil {
		p.Member = &Member{Name: etcd.flag("name"), DataDir: etcd.flag("data-dir"), Image: etcd.Image}
		p.Member.PeerURLs = strings.Split(etcd.flag("initial-advertise-peer-urls"), ",")
		if p.Member.Name == "" || !filepath.IsAbs(p.Member.DataDir) {
			return fmt.Errorf("the manifest %s: --name and --data-dir must be set", etcd.File.Path)
		}
	}
	return nil
}

// Tag returns the tag of an image reference; "" where it has none.
func Tag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[i+1:]
	}
	return ""
}
