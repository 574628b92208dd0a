package cli

import (
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/cri/critest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// runIn runs the containers of a pod in a runtime. Without a spec hash it is a pod of somebody else's.
func runIn(t *testing.T, client *cri.Client, dir, namespace, name, specHash string, containers ...string) {
	t.Helper()
	labels := map[string]string{podspec.LabelPodNamespace: namespace, podspec.LabelPodName: name, podspec.LabelPodUID: "u-" + name}
	notes := map[string]string{podspec.AnnotationInstance: ""}
	if specHash != "" {
		notes[podspec.AnnotationSpecHash] = specHash
	}
	host := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: namespace, Uid: "u-" + name}, Labels: labels, Annotations: notes,
		LogDirectory: filepath.Join(dir, name),
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod" + name,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: host}},
	}
	sandbox, err := client.RunPodSandbox(t.Context(), pod, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers {
		of := map[string]string{podspec.LabelContainerName: c}
		for k, v := range labels {
			of[k] = v
		}
		id, err := client.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: c}, Image: &runtimeapi.ImageSpec{Image: "registry.example/main:1"}, Labels: of,
			LogPath: c + "/0.log",
			Linux:   &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: host}},
		}, pod)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.StartContainer(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExecFindsTheContainer asks the runtime, and where the runtime has none the supervisor knows why.
func TestExecFindsTheContainer(t *testing.T) {
	n := newNode(t)
	n.furnish()
	runtime := critest.New(critest.Options{})
	runtime.AddImage("registry.example/main:1")
	socket := critest.Serve(t, runtime).Socket
	client, err := cri.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	dir := t.TempDir()
	runIn(t, client, dir, "kube-system", "etcd-n1", "hash", "main")
	runIn(t, client, dir, "default", "web-n1", "hash", "nginx", "log")
	runIn(t, client, dir, "default", "stranger-n1", "", "main")

	got, err := runningContainers(t.Context(), n.g, socket)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].pod.node != "n1" {
		t.Errorf("running: %+v, want those of two pods, with their node", got)
	}
	var text strings.Builder
	for _, args := range []string{
		"exec --cri-socket SOCKET web -- ls", "exec --cri-socket SOCKET web -c nothing -- ls", "exec --cri-socket SOCKET stranger -- ls",
		"exec --cri-socket SOCKET kube-apiserver -- ls", "exec --cri-socket SOCKET web -c extra -- ls", "exec --cri-socket SOCKET dns -- ls",
		"exec --cri-socket SOCKET etdc -- ls", "exec --cri-socket SOCKET -t etcd -- sh", "exec --cri-socket SOCKET.none etcd -- ls",
		"exec etcd", "exec etcd ls", "exec -- ls", "exec etcd web -- ls", "exec",
	} {
		text.WriteString(strings.ReplaceAll(n.slipway(strings.Fields(strings.ReplaceAll(args, "SOCKET", socket))...), socket, "SOCKET"))
	}
	compare(t, "exec", text.String())
}
