package containerd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testImage is an image of one layer.
type testImage struct {
	refs       []string
	entrypoint []string
	files      map[string][]byte // by path in the image; all executable
}

// file is an entry of an archive. An archive is a list of them, in order.
type file struct {
	name string
	data []byte
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func tarball(t *testing.T, files []file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o755, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// parts returns the image's layer and config.
func (i testImage) parts(t *testing.T) (layer, config []byte) {
	t.Helper()
	var files []file
	for name, data := range i.files {
		files = append(files, file{name, data})
	}
	layer = tarball(t, files)
	return layer, marshal(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": i.entrypoint},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
}

func (i testImage) id(t *testing.T) string {
	_, config := i.parts(t)
	return digest(config)
}

// docker is the layout of docker save.
func (i testImage) docker(t *testing.T) []file {
	layer, config := i.parts(t)
	name := strings.TrimPrefix(digest(config), "sha256:") + ".json"
	return []file{
		{"layer.tar", layer}, {name, config},
		{"manifest.json", marshal(t, []map[string]any{{"Config": name, "RepoTags": i.refs, "Layers": []string{"layer.tar"}}})},
	}
}

// manifest returns the image's OCI manifest.
func (i testImage) manifest(t *testing.T) []byte {
	layer, config := i.parts(t)
	return marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
	})
}

func descriptor(mediaType string, data []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest(data), "size": len(data)}
}

func blob(data []byte) file {
	return file{"blobs/sha256/" + strings.TrimPrefix(digest(data), "sha256:"), data}
}

// oci is an OCI layout with an index inside the index, as buildx makes it, and another platform's image in it.
func (i testImage) oci(t *testing.T) []file {
	layer, config := i.parts(t)
	manifest := i.manifest(t)
	mine, other := descriptor("application/vnd.oci.image.manifest.v1+json", manifest), descriptor("application/vnd.oci.image.manifest.v1+json", []byte("{}"))
	mine["platform"] = map[string]any{"os": "linux", "architecture": runtime.GOARCH}
	other["platform"] = map[string]any{"os": "linux", "architecture": "s390x"}
	inner := marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{other, mine},
	})
	var entries []any
	for _, ref := range i.refs {
		d := descriptor("application/vnd.oci.image.index.v1+json", inner)
		d["annotations"] = map[string]any{"io.containerd.image.name": ref}
		entries = append(entries, d)
	}
	return []file{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		blob(layer), blob(config), blob(manifest), blob([]byte("{}")), blob(inner),
		{"index.json", marshal(t, map[string]any{"schemaVersion": 2, "manifests": entries})},
	}
}

func writeTar(t *testing.T, path string, files []file) string {
	t.Helper()
	return write(t, path, tarball(t, files))
}

func writeGzip(t *testing.T, path string, files []file) string {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(tarball(t, files)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, path, buf.Bytes())
}

func writeDir(t *testing.T, path string, files []file) string {
	t.Helper()
	for _, f := range files {
		write(t, filepath.Join(path, f.name), f.data)
	}
	return path
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspect(t *testing.T) {
	dir := t.TempDir()
	image := testImage{refs: []string{"registry.k8s.io/etcd:3.6.8-0", "example.com/etcd:1"}, files: map[string][]byte{"etcd": bytes.Repeat([]byte("x"), 1<<16)}}
	want := []ArchiveImage{{"example.com/etcd:1", image.id(t)}, {"registry.k8s.io/etcd:3.6.8-0", image.id(t)}}
	digests := map[string]bool{}
	for name, path := range map[string]string{
		"docker tar":    writeTar(t, filepath.Join(dir, "docker.tar"), image.docker(t)),
		"docker tar.gz": writeGzip(t, filepath.Join(dir, "docker.tar.gz"), image.docker(t)),
		"named wrongly": writeGzip(t, filepath.Join(dir, "packed.tar"), image.docker(t)),
		"oci tar":       writeTar(t, filepath.Join(dir, "oci.tar"), image.oci(t)),
		"oci directory": writeDir(t, filepath.Join(dir, "oci"), image.oci(t)),
	} {
		got, err := Inspect(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got.Images); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		digests[got.Digest] = true
	}
	if len(digests) != 1 {
		t.Errorf("digests %v: want one, the images are the same", digests)
	}
}

func TestInspectFillsInDockerNames(t *testing.T) {
	got, err := Inspect(writeTar(t, filepath.Join(t.TempDir(), "a.tar"), testImage{refs: []string{"busybox"}}.docker(t)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"docker.io/library/busybox:latest"}, got.Refs()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestInspectSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	good := tarball(t, testImage{refs: []string{"example.com/a:1"}}.docker(t))
	for want, path := range map[string]string{
		"neither a docker archive": writeTar(t, filepath.Join(dir, "other.tar"), []file{{"readme", []byte("hello")}}),
		"invalid tar header":       write(t, filepath.Join(dir, "text"), bytes.Repeat([]byte("no tar "), 200)),
		"unexpected EOF":           write(t, filepath.Join(dir, "short.tar"), good[:600]),
		"zstd":                     write(t, filepath.Join(dir, "a.tar.zst"), []byte{0x28, 0xb5, 0x2f, 0xfd, 0}),
		`names the config "c.json"`: writeTar(t, filepath.Join(dir, "config.tar"), []file{
			{"manifest.json", []byte(`[{"Config":"c.json","RepoTags":["example.com/a:1"]}]`)}}),
		"no such file": filepath.Join(dir, "absent.tar"),
	} {
		if _, err := Inspect(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v; want %q and the path in it", path, err, want)
		}
	}
}
