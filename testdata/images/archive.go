package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const registry = "registry.k8s.io/"

// image is one archive: its reference, the programs that lie in its /usr/local/bin, and what they need beside them.
type image struct {
	ref        string
	programs   []string
	entrypoint []string
	files      map[string]string // path in the image → file on this machine
}

func images() []image {
	return []image{
		{ref: registry + "etcd:" + etcdVersion + "-0", programs: []string{"etcd", "etcdctl", "etcdutl"}},
		{ref: registry + "kube-apiserver:" + kubernetesVersion, programs: []string{"kube-apiserver"}},
		{ref: registry + "kube-controller-manager:" + kubernetesVersion, programs: []string{"kube-controller-manager"}},
		{ref: registry + "kube-scheduler:" + kubernetesVersion, programs: []string{"kube-scheduler"}},
		{ref: registry + "pause:" + pauseVersion, programs: []string{"pause"}, entrypoint: []string{"/usr/local/bin/pause"}},
	}
}

// subject is the image that the tests' and the benchmark's own pods run. It lies beside the programs, because init loads
// every archive of a directory that it is given.
func subject() image {
	return image{ref: "slipway.dev/subject:1", programs: []string{"subject"}, entrypoint: []string{"/usr/local/bin/subject"}}
}

// addons are the images that run on a cluster's workers. Init loads every archive of the control plane's directory: they
// have one of their own.
func addons() ([]image, error) {
	files, err := iptables()
	if err != nil {
		return nil, err
	}
	return []image{
		{ref: registry + "kube-proxy:" + kubernetesVersion, programs: []string{"kube-proxy"}, files: files},
		{ref: registry + "coredns/coredns:" + coreDNSVersion, programs: []string{"coredns"}, entrypoint: []string{"/usr/local/bin/coredns"}},
	}, nil
}

// archive writes one archive per image. An archive that is already there is kept when it was made from the same build.
func (b builder) archive(dir string, programs map[string]string, images ...image) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making %q: %w", dir, err)
	}
	for _, im := range images {
		id := ""
		if len(im.files) > 0 {
			sum, err := digest(im.files)
			if err != nil {
				return fmt.Errorf("packing %s: %w", im.ref, err)
			}
			id = "-" + sum
		}
		kept := filepath.Join(filepath.Dir(programs[im.programs[0]]), im.programs[0]+id+".tar")
		if _, err := os.Stat(kept); err != nil {
			b.progress("%s: packing", im.ref)
			if err := write(im, programs, kept); err != nil {
				return fmt.Errorf("packing %s: %w", im.ref, err)
			}
		}
		if err := copyFile(kept, filepath.Join(dir, im.programs[0]+".tar"), 0o644); err != nil {
			return err
		}
	}
	b.progress("%d archives in %s", len(images), dir)
	return nil
}

func write(im image, programs map[string]string, path string) error {
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return content(im, programs) },
		tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	img, err = mutate.Config(img, v1.Config{Entrypoint: im.entrypoint, Env: []string{"PATH=/usr/local/bin:/usr/sbin"}})
	if err != nil {
		return err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.Architecture, file.OS = runtime.GOARCH, "linux"
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return err
	}
	tag, err := name.NewTag(im.ref)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(path+".partial", tag, img); err != nil {
		return err
	}
	return os.Rename(path+".partial", path)
}

// content is the one layer of an image. Times are zero, so that the same files give the same digest.
func content(im image, programs map[string]string) (io.ReadCloser, error) {
	files := maps.Clone(im.files)
	if files == nil {
		files = map[string]string{}
	}
	for _, name := range im.programs {
		files["usr/local/bin/"+name] = programs[name]
	}
	dirs := map[string]int64{"tmp": 0o1777}
	for path := range files {
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			dirs[dir] = 0o755
		}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: dirs[dir]}); err != nil {
			return nil, err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		data, err := os.ReadFile(files[path])
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return io.NopCloser(&buf), nil
}
