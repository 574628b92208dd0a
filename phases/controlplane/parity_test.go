package controlplane_test

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/kubeletconfig"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/etcd"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/templates"
)

const parity = "../../testdata/parity"

// rendering is what one tool makes of a variant: pods by name, and the KubeletConfiguration.
type rendering struct {
	pods    map[string]*corev1.Pod
	kubelet *kubeletv1beta1.KubeletConfiguration
}

// A difference is one way in which slipway means to differ from kubeadm. It turns what kubeadm rendered into what
// slipway has to, and reports whether there was anything to turn. docs/manifests.md lists each by name.
type difference struct {
	name   string
	reason string
	turn   func(kubeadm rendering, cfg *config.Cluster) bool
}

var differences = []difference{
	{"etcd-certs-read-only", "etcd only reads its keys: a compromised etcd must not replace its own CA", etcdCertsReadOnly},
	{"start-after", "components that only wait for the API server are held back until it is ready", startAfter},
	{"rollback", "a version that does not become ready is given up for the last one that was", rollback},
	{"quick-shutdown", "a watch that a client keeps open holds the shutdown up for 2 s instead of 60 s, so every restart is shorter", quickShutdown},
	{"probe-follows-secure-port", "kubeadm goes on probing the default port, where nothing listens, and the component is killed for ever", probeFollowsSecurePort},
	{"etcd-certs-by-whole-names", "kubeadm takes /etc/kubernetes/pki-etcd for a part of /etc/kubernetes/pki and does not mount it: the API server cannot start", etcdCertsByWholeNames},
	{"rotate-certificates-as-given", "kubeadm overrides a rotateCertificates: false that the user wrote", rotateCertificatesAsGiven},
}

func etcdCertsReadOnly(kubeadm rendering, _ *config.Cluster) bool {
	pod, ok := kubeadm.pods["etcd"]
	if !ok {
		return false
	}
	mounts := pod.Spec.Containers[0].VolumeMounts
	i := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.Name == "etcd-certs" && !m.ReadOnly })
	if i < 0 {
		return false
	}
	mounts[i].ReadOnly = true
	return true
}

func startAfter(kubeadm rendering, _ *config.Cluster) bool {
	turned := false
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		pod := kubeadm.pods[name]
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		turned = turned || pod.Annotations["slipway.dev/start-after"] == ""
		pod.Annotations["slipway.dev/start-after"] = "kube-apiserver"
	}
	return turned
}

func rollback(kubeadm rendering, _ *config.Cluster) bool {
	turned := false
	for _, pod := range kubeadm.pods {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		turned = turned || pod.Annotations["slipway.dev/rollback"] == ""
		pod.Annotations["slipway.dev/rollback"] = "true"
	}
	return turned
}

func quickShutdown(kubeadm rendering, _ *config.Cluster) bool {
	c := &kubeadm.pods["kube-apiserver"].Spec.Containers[0]
	i := slices.IndexFunc(c.Command, func(flag string) bool { return strings.HasPrefix(flag, "--tls-cert-file=") })
	if i < 0 {
		return false
	}
	c.Command = slices.Insert(c.Command, i, "--shutdown-send-retry-after=true")
	return true
}

func probeFollowsSecurePort(kubeadm rendering, _ *config.Cluster) bool {
	turned := false
	for _, pod := range kubeadm.pods {
		for _, flag := range pod.Spec.Containers[0].Command {
			value, ok := strings.CutPrefix(flag, "--secure-port=")
			if port, err := strconv.ParseInt(value, 10, 32); ok && err == nil {
				turned = turned || pod.Spec.Containers[0].Ports[0].ContainerPort != int32(port)
				pod.Spec.Containers[0].Ports[0].ContainerPort = int32(port)
			}
		}
	}
	return turned
}

func etcdCertsByWholeNames(kubeadm rendering, cfg *config.Cluster) bool {
	pod := kubeadm.pods["kube-apiserver"]
	if cfg.Etcd.External == nil || filepath.Dir(cfg.Etcd.External.CAFile) != "/etc/kubernetes/pki-etcd" {
		return false
	}
	if slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "etcd-certs-0" }) {
		return false
	}
	dir, kind := "/etc/kubernetes/pki-etcd", corev1.HostPathDirectoryOrCreate
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "etcd-certs-0", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: &kind},
	}})
	slices.SortFunc(pod.Spec.Volumes, func(a, b corev1.Volume) int { return cmp.Compare(a.Name, b.Name) })
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "etcd-certs-0", MountPath: dir, ReadOnly: true})
	slices.SortFunc(c.VolumeMounts, func(a, b corev1.VolumeMount) int { return cmp.Compare(a.Name, b.Name) })
	return true
}

func rotateCertificatesAsGiven(kubeadm rendering, cfg *config.Cluster) bool {
	var user struct{ RotateCertificates *bool }
	if cfg.Kubelet == nil || json.Unmarshal(cfg.Kubelet, &user) != nil || user.RotateCertificates == nil {
		return false
	}
	turned := kubeadm.kubelet.RotateCertificates != *user.RotateCertificates
	kubeadm.kubelet.RotateCertificates = *user.RotateCertificates
	return turned
}

// TestParity compares what slipway and kubeadm make of the same files. kubeadm's half was rendered by the program
// itself, see testdata/parity/regenerate.
func TestParity(t *testing.T) {
	inputs, err := filepath.Glob(filepath.Join(parity, "*.yaml"))
	if err != nil || len(inputs) < 10 {
		t.Fatalf("too few variants in %s: %q, %v", parity, inputs, err)
	}
	occurs := map[string]bool{}
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".yaml"), func(t *testing.T) {
			cfg, ca := load(t, input)
			want := kubeadms(t, strings.TrimSuffix(input, ".yaml"))
			for _, d := range differences {
				if d.turn(want, cfg) {
					occurs[d.name] = true
				}
			}
			got := ours(t, cfg, ca)
			if diff := gocmp.Diff(want.pods, got.pods); diff != "" {
				t.Errorf("manifests (-kubeadm with the intended differences +slipway):\n%s", diff)
			}
			if diff := gocmp.Diff(want.kubelet, got.kubelet); diff != "" {
				t.Errorf("KubeletConfiguration (-kubeadm with the intended differences +slipway):\n%s", diff)
			}
		})
	}
	doc, err := os.ReadFile("../../docs/manifests.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		if !occurs[d.name] {
			t.Errorf("%s occurs in no variant any more: kubeadm does the same now, or a variant is missing", d.name)
		}
		if !strings.Contains(string(doc), "`"+d.name+"`") {
			t.Errorf("docs/manifests.md does not list %s: %s", d.name, d.reason)
		}
	}
}

// load returns the cluster of a variant. Comments at its head tell what the rendering host is like.
func load(t *testing.T, input string) (*config.Cluster, controlplane.SigningCA) {
	t.Helper()
	data, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	o := config.Options{File: input, Data: data, Facts: config.HostFacts{Hostname: "host", CgroupDriver: "systemd", ProxyEnv: map[string]string{}}}
	external := false
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if dir, ok := strings.CutPrefix(line, "# dir: "); ok {
			o.Facts.CADirs = append(o.Facts.CADirs, dir)
		}
		if env, ok := strings.CutPrefix(line, "# env: "); ok {
			name, value, _ := strings.Cut(env, "=")
			o.Facts.ProxyEnv[name] = value
		}
		external = external || strings.HasPrefix(line, "# external-ca")
	}
	dir, err := config.PatchesDirectory(o)
	if err != nil {
		t.Fatal(err)
	}
	if dir != "" {
		o.Patches = patchFiles(t)
	}
	cfg, _, err := config.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	if external {
		return cfg, controlplane.SigningCA{}
	}
	return cfg, controlplane.LocalCA(cfg)
}

func patchFiles(t *testing.T) []config.PatchFile {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(parity, "patches.d", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var files []config.PatchFile
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, config.PatchFile{Name: name, Data: data})
	}
	return files
}

func kubeadms(t *testing.T, dir string) rendering {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no manifests in %s: run testdata/parity/regenerate", dir)
	}
	var files []artifact.File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, artifact.File{Path: name, Data: data})
	}
	return decode(t, files)
}

func ours(t *testing.T, cfg *config.Cluster, ca controlplane.SigningCA) rendering {
	t.Helper()
	files, err := controlplane.Manifests(cfg, ca)
	if err != nil {
		t.Fatal(err)
	}
	member, err := etcd.Manifests(cfg)
	if err != nil {
		t.Fatal(err)
	}
	document, err := kubelet.File(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, append(append(files, member...), document))
}

func decode(t *testing.T, files []artifact.File) rendering {
	t.Helper()
	r := rendering{pods: map[string]*corev1.Pod{}}
	for _, f := range files {
		var err error
		if name := strings.TrimSuffix(filepath.Base(f.Path), ".yaml"); name == "config" {
			r.kubelet, err = kubeletconfig.Decode(f.Data)
		} else {
			r.pods[name], err = templates.Decode(f.Data)
		}
		if err != nil {
			t.Fatalf("%s: %v", f.Path, err)
		}
	}
	return r
}
