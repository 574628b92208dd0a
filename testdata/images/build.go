package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

const (
	kubernetesVersion = "v1.36.3"
	etcdVersion       = "3.6.8"
	pauseVersion      = "3.10.2"
	containerdVersion = "v2.4.2"
	coreDNSVersion    = "v1.14.2"
	// componentVersion is where Kubernetes programs keep what they answer to "version"; clients and kubeadm refuse
	// v0.0.0-master, the value of an unstamped build.
	componentVersion = "k8s.io/component-base/version"
)

// set is a group of programs that are built from one pinned module.
type set struct {
	module   string            // directory of the module, and its name in messages
	packages map[string]string // program → package
	ldflags  string
}

func sets(all bool) []set {
	kube := map[string]string{}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"} {
		kube[name] = "k8s.io/kubernetes/cmd/" + name
	}
	groups := []set{
		{module: "pause", packages: map[string]string{"pause": "."}, ldflags: "-s -w"},
		{module: "etcd", packages: map[string]string{
			"etcd": "go.etcd.io/etcd/server/v3", "etcdctl": "go.etcd.io/etcd/etcdctl/v3", "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
		}, ldflags: "-s -w"},
		{module: "kubernetes", packages: kube, ldflags: stamp()},
	}
	if all {
		groups = append(groups, set{module: "subject", packages: map[string]string{"subject": "."}, ldflags: "-s -w"})
		groups = append(groups, set{module: "containerd", packages: map[string]string{
			"containerd":              "github.com/containerd/containerd/v2/cmd/containerd",
			"containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
		}, ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=" + containerdVersion})
		groups = append(groups, set{module: "kubernetes", packages: map[string]string{
			"kubeadm": "k8s.io/kubernetes/cmd/kubeadm", "kubelet": "k8s.io/kubernetes/cmd/kubelet",
			"kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
		}, ldflags: stamp()})
		groups = append(groups, set{module: "coredns", packages: map[string]string{"coredns": "github.com/coredns/coredns"}, ldflags: "-s -w"})
	}
	return groups
}

func stamp() string {
	return fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=36", componentVersion, kubernetesVersion)
}

type builder struct {
	source, cache string
	progress      func(string, ...any)
}

// build returns the path of each program of the set, built now or found in the cache.
func (b builder) build(ctx context.Context, s set) (map[string]string, error) {
	dir := filepath.Join(b.source, s.module)
	key, err := b.key(dir, s)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for name, pkg := range s.packages {
		path := filepath.Join(b.cache, key, name)
		paths[name] = path
		if _, err := os.Stat(path); err == nil {
			b.progress("%s: kept from an earlier build", name)
			continue
		}
		b.progress("%s: building from module %s", name, s.module)
		if err := compile(ctx, dir, pkg, s.ldflags, path); err != nil {
			return nil, fmt.Errorf("building %s: %w", name, err)
		}
	}
	return paths, nil
}

// compile builds one program without cgo, so that an image needs nothing but the program. The result appears under its
// name only when it is whole.
func compile(ctx context.Context, dir, pkg, ldflags, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", ldflags, "-o", absolute+".partial", pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	return os.Rename(absolute+".partial", absolute)
}

// key names a build by what goes into it: the pinned modules, the flags, the toolchain and the target.
func (b builder) key(dir string, s set) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH, s.ldflags)
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			return "", fmt.Errorf("reading %q: %w", filepath.Join(dir, name), err)
		}
		fmt.Fprintln(h, name, len(data))
		h.Write(data)
	}
	return fmt.Sprintf("%s-%x", s.module, h.Sum(nil)[:8]), nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("opening %q: %w", from, err)
	}
	defer in.Close()
	out, err := os.OpenFile(to+".partial", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return fmt.Errorf("creating %q: %w", to, err)
	}
	_, err = io.Copy(out, in)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("copying %q: %w", from, err)
	}
	return os.Rename(to+".partial", to)
}
