//go:build e2e

// These tests run the etcd and kube-apiserver of bin/k8s on free ports of the loopback interface, with a PKI of their
// own in a temporary directory, and the Node authorizer and NodeRestriction at work. They need no root and no runtime.

package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

const node = "edge1"

func program(t *testing.T, name string) string {
	path, err := filepath.Abs(filepath.Join("../../bin/k8s", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: build or fetch the programs of Kubernetes first", err)
	}
	return path
}

// controlPlane is an etcd and an API server, each of which can be stopped and started.
type controlPlane struct {
	t          *testing.T
	dir        string
	ca         *authority
	port       string
	apiArgs    []string
	api        *exec.Cmd
	admin      string // kubeconfigs
	kubeconfig string
}

func newControlPlane(t *testing.T) *controlPlane {
	c := &controlPlane{t: t, dir: t.TempDir(), ca: newAuthority(t), port: freePort(t)}
	write := func(name string, data []byte) string {
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := write("ca.crt", pemOf("CERTIFICATE", c.ca.cert.Raw))
	certPEM, keyPEM := c.ca.pair("kube-apiserver")
	cert, key := write("apiserver.crt", certPEM), write("apiserver.key", keyPEM)
	client, peer := "http://127.0.0.1:"+freePort(t), "http://127.0.0.1:"+freePort(t)
	c.start("etcd", "--data-dir="+filepath.Join(c.dir, "etcd"), "--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer, "--unsafe-no-fsync")
	c.apiArgs = []string{"--etcd-servers=" + client, "--bind-address=127.0.0.1", "--secure-port=" + c.port, "--client-ca-file=" + ca,
		"--tls-cert-file=" + cert, "--tls-private-key-file=" + key, "--service-account-key-file=" + cert, "--service-account-signing-key-file=" + key,
		"--service-account-issuer=https://kubernetes", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
		"--audit-policy-file=" + write("audit.yaml", []byte(auditPolicy)), "--audit-log-path=" + filepath.Join(c.dir, "audit.log")}
	c.admin, c.kubeconfig = filepath.Join(c.dir, "admin.conf"), filepath.Join(c.dir, "kubelet.conf")
	c.ca.writeKubeconfig(c.admin, "https://127.0.0.1:"+c.port, "admin", "system:masters")
	c.ca.writeKubeconfig(c.kubeconfig, "https://127.0.0.1:"+c.port, "system:node:"+node, "system:nodes")
	return c
}

// auditPolicy has the API server write down what the node asks for.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: ["system:node:edge1"]}
- {level: None}
`

// requests returns how often the node has asked for what since the audit log had so many bytes, and how many it has now.
func (c *controlPlane) requests(from int) (map[string]int, int) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "audit.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range bytes.Lines(text[from:]) {
		var e struct {
			Verb, Stage string
			ObjectRef   struct{ Resource, Subresource string }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			c.t.Fatalf("%v in %s", err, line)
		}
		if e.Stage == "ResponseComplete" {
			counts[strings.TrimSuffix(e.Verb+" "+e.ObjectRef.Resource+"/"+e.ObjectRef.Subresource, "/")]++
		}
	}
	return counts, len(text)
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (c *controlPlane) start(name string, args ...string) *exec.Cmd {
	log, err := os.Create(filepath.Join(c.dir, fmt.Sprintf("%s-%d.log", name, time.Now().UnixNano())))
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program(c.t, name), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		end(cmd)
		if c.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			lines := strings.Split(string(text), "\n")
			c.t.Logf("%s:\n%s", log.Name(), strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	})
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // a second time: it was waited for already
}

// startAPI returns at the API server's readiness.
func (c *controlPlane) startAPI() time.Time {
	c.t.Helper()
	c.api = c.start("kube-apiserver", c.apiArgs...)
	creds, err := readKubeconfig(c.admin, node)
	if err != nil {
		c.t.Fatal(err)
	}
	api := newClient(creds, usualPace())
	defer api.close()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); wait(c.t.Context(), 10*time.Millisecond) {
		if resp, err := api.send(c.t.Context(), http.MethodGet, "/readyz", "", nil); err == nil {
			resp.Body.Close()
			return time.Now()
		}
	}
	c.t.Fatal("the API server does not become ready")
	return time.Time{}
}

func (c *controlPlane) kubectl(args ...string) string {
	c.t.Helper()
	out, err := exec.CommandContext(c.t.Context(), program(c.t, "kubectl"), append([]string{"--kubeconfig", c.admin, "--cache-dir", filepath.Join(c.dir, "cache")}, args...)...).CombinedOutput()
	if err != nil {
		c.t.Errorf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// pods asks the API server for what matters of the mirrors, without kubectl's start-up time.
func (c *controlPlane) pods() map[string]seen {
	c.t.Helper()
	creds, err := readKubeconfig(c.admin, node)
	if err != nil {
		c.t.Fatal(err)
	}
	api := newClient(creds, usualPace())
	defer api.close()
	all := map[string]seen{}
	var list corev1.PodList
	if err := api.get(c.t.Context(), "/api/v1/namespaces/kube-system/pods", &list); err != nil {
		return all
	}
	for i := range list.Items {
		all[list.Items[i].Name] = seenOf(&list.Items[i])
	}
	return all
}

func (c *controlPlane) await(what string, ok func(map[string]seen) bool) time.Time {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); wait(c.t.Context(), 5*time.Millisecond) {
		if ok(c.pods()) {
			return time.Now()
		}
	}
	c.t.Fatalf("waited in vain for %s:\n%s", what, c.kubectl("get", "pods", "-A", "-o", "yaml"))
	return time.Time{}
}

var components = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// staticPods are the control plane's, as the supervisor shows them when they run.
func staticPods(t *testing.T) []*corev1.Pod {
	var all []*corev1.Pod
	for _, name := range components {
		text := fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: kube-system, labels: {component: %[1]s, tier: control-plane}},
spec: {hostNetwork: true, priorityClassName: system-node-critical, priority: 2000001000, containers: [{name: %[1]s, image: "registry.k8s.io/%[1]s:v1",
command: [%[1]s], resources: {requests: {cpu: 100m}}, ports: [{containerPort: 2379, name: p}], volumeMounts: [{name: d, mountPath: /d}]}],
volumes: [{name: d, hostPath: {path: /d, type: DirectoryOrCreate}}]}}`, name)
		parsed, err := manifest.Parse([]byte(text), "/m/"+name+".yaml", node)
		if err != nil {
			t.Fatal(err)
		}
		pod := parsed.Pod.DeepCopy()
		pod.Annotations[manifest.AnnotationConfigSeen] = time.Now().Format(time.RFC3339Nano)
		pod.Status = staticPod(name, "").Status
		pod.Status.ContainerStatuses[0].Image, pod.Status.ContainerStatuses[0].ImageID = pod.Spec.Containers[0].Image, "sha256:0"
		all = append(all, pod)
	}
	return all
}

func ready(pods map[string]seen) bool {
	for _, name := range components {
		p, there := pods[name+"-"+node]
		if !there || p.deleting || p.status.Phase != corev1.PodRunning || len(p.status.ContainerStatuses) != 1 || !p.status.ContainerStatuses[0].Ready {
			return false
		}
	}
	return true
}

func awaitLine(t *testing.T, log *logBuffer, line string, times int) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); strings.Count(log.String(), line) < times; wait(t.Context(), 10*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %d lines of %q", times, line)
		}
	}
}

// eventsAreShown looks for events where people do.
func eventsAreShown(c *controlPlane, happened *event.Log, uid string) {
	c.t.Helper()
	back := event.Event{Pod: "kube-system/etcd-" + node, UID: uid, Container: "etcd", Type: event.Warning, Reason: event.BackOffRestart, Message: "Back-off restarting failed container etcd"}
	happened.Record(back)
	happened.Record(event.Event{Type: event.Warning, Reason: event.FreedDiskSpace, Message: "unused images were removed"})
	happened.Record(back)
	shown := func(what string, words []string, args ...string) {
		c.t.Helper()
		text := ""
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			text = c.kubectl(args...)
			missing := false
			for _, w := range words {
				missing = missing || !strings.Contains(text, w)
			}
			if !missing {
				return
			}
		}
		c.t.Errorf("%s does not show %q:\n%s", what, words, text)
	}
	shown("describe", []string{"BackOff", "x2 over", "slipway"}, "describe", "pod", "-n", "kube-system", "etcd-"+node)
	shown("events", []string{"BackOff", "Pod/etcd-" + node, "Back-off restarting"}, "events", "-n", "kube-system", "--for", "pod/etcd-"+node)
	shown("describe node", []string{"unused images were removed"}, "describe", "node", node)
	shown("events of the node", []string{"unused images were removed"}, "events", "-n", "default", "--for", "node/"+node)
	c.t.Log("\n" + c.kubectl("get", "events", "-A", "-o", "wide"))
}

// onlyHeartbeats counts for a while what the API server is asked for while nothing changes.
func onlyHeartbeats(t *testing.T, c *controlPlane, b *board, pods []*corev1.Pod) {
	_, from := c.requests(0)
	const seconds = 45
	for range seconds {
		b.set(pods...) // told anew, without news
		wait(t.Context(), time.Second)
	}
	counts, _ := c.requests(from)
	t.Logf("within %d s: %v", seconds, counts)
	for request, n := range counts {
		if allowed := map[string]int{"update leases": 5, "get nodes": 5}[request]; n > allowed {
			t.Errorf("%d × %s, want at most %d", n, request, allowed)
		}
	}
}

func TestRealAPIServer(t *testing.T) {
	c := newControlPlane(t)
	b, log := &board{changed: make(chan struct{})}, &logBuffer{}
	pods := staticPods(t)
	b.set(pods...)
	capacity, info, err := ReadMachine(c.dir, 110)
	if err != nil {
		t.Fatal(err)
	}
	info.KubeletVersion, info.ContainerRuntimeVersion = "v0.1.0-slipway", "containerd://2.0.0"
	happened := event.NewLog(time.Now)
	m := New(Config{Kubeconfig: c.kubeconfig, NodeName: node, HostIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
		Capacity: capacity, Info: info, Pods: b.pods, Log: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now, Events: happened.Since,
		Taints: []corev1.Taint{{Key: "role", Value: "edge", Effect: corev1.TaintEffectNoSchedule}}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		t.Log("log:\n" + log.String())
	}()

	at := c.startAPI()
	took := c.await("the mirrors", ready).Sub(at)
	t.Logf("mirrors %s after the API server's readiness", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("mirrors took %s", took)
	}
	wide := c.kubectl("get", "pods", "-n", "kube-system", "-o", "wide")
	t.Log("\n" + wide + c.kubectl("get", "nodes", "-o", "wide") + c.kubectl("get", "leases", "-n", "kube-node-lease"))
	for _, name := range components {
		if !strings.Contains(strings.Join(strings.Fields(wide), " "), name+"-"+node+" 1/1 Running 0 ") {
			t.Errorf("%s is not Running 1/1", name)
		}
	}
	etcd, shown := "etcd-"+node, func(change func(seen) bool) func(map[string]seen) bool {
		return func(all map[string]seen) bool { return ready(all) && change(all["etcd-"+node]) }
	}

	for name, kill := range map[string][]string{
		"deleted":    {"delete", "pod", "-n", "kube-system", etcd, "--wait=false"},
		"forced":     {"delete", "pod", "-n", "kube-system", etcd, "--force", "--grace-period=0"},
		"labelled":   {"label", "pod", "-n", "kube-system", etcd, "--overwrite", "component=x"},
		"annotated":  {"annotate", "pod", "-n", "kube-system", etcd, "--overwrite", "kubernetes.io/config.source=http"},
		"image":      {"set", "image", "-n", "kube-system", "pod/" + etcd, "etcd=evil"},
		"toleration": {"patch", "pod", "-n", "kube-system", etcd, "--type=json", "-p", `[{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "x", "operator": "Exists"}}]`},
		"deadline":   {"patch", "pod", "-n", "kube-system", etcd, "-p", `{"spec": {"activeDeadlineSeconds": 5}}`},
	} {
		was := c.pods()[etcd].uid
		c.kubectl(kill...)
		at := time.Now()
		took := c.await("the mirror that was "+name, shown(func(p seen) bool { return p.uid != was })).Sub(at)
		t.Logf("%s: back %s after kubectl's end", name, took.Round(time.Millisecond))
		if took > 500*time.Millisecond {
			t.Errorf("%s: back after %s", name, took)
		}
	}

	if n := strings.Count(log.String(), "mirror pod removed"); n > 7 {
		t.Errorf("%d removals for 7 changes", n)
	}
	t.Run("events", func(t *testing.T) { eventsAreShown(c, happened, string(pods[0].UID)) })
	t.Run("steady", func(t *testing.T) { onlyHeartbeats(t, c, b, pods) })
	t.Run("lease", func(t *testing.T) {
		c.kubectl("delete", "lease", "-n", "kube-node-lease", node)
		for deadline := time.Now().Add(15 * time.Second); !strings.Contains(c.kubectl("get", "leases", "-n", "kube-node-lease", "--ignore-not-found"), node); {
			if wait(t.Context(), 100*time.Millisecond); time.Now().After(deadline) {
				t.Fatal("it does not come back")
			}
		}
	})

	t.Run("taints", func(t *testing.T) { // as the node, which may not
		out, err := exec.Command(program(t, "kubectl"), "--kubeconfig", c.kubeconfig, "taint", "node", node, TaintKey+"-").CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("not allowed to modify taints")) {
			t.Errorf("%v\n%s", err, out)
		}
	})

	end(c.api) // away, and a pod changes meanwhile
	awaitLine(t, log, "not reachable", 1)
	changed := pods[3].DeepCopy()
	changed.UID, changed.Annotations[manifest.AnnotationConfigHash] = "0123", "0123"
	b.set(pods[0], pods[1], pods[2], changed)
	at = c.startAPI()
	took = c.await("what changed meanwhile", func(all map[string]seen) bool { return ready(all) && all["kube-scheduler-"+node].hash == "0123" }).Sub(at)
	t.Logf("restarted API server: up to date %s after its readiness", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("took %s", took)
	}

	if err := c.api.Process.Signal(syscall.SIGSTOP); err != nil { // it accepts and never answers
		t.Fatal(err)
	}
	b.set(pods[0], pods[1], changed)
	awaitLine(t, log, "not reachable", 2)
	if err := c.api.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	at = time.Now()
	took = c.await("the orphan's end", func(all map[string]seen) bool {
		_, there := all["kube-controller-manager-"+node]
		return !there && len(all) == 3
	}).Sub(at)
	t.Logf("hung API server: up to date %s after it went on", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("took %s", took)
	}

	c.kubectl("delete", "node", node)
	c.await("the node's mirrors", func(all map[string]seen) bool { return len(all) == 3 })
	uid := strings.TrimSpace(c.kubectl("get", "node", node, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"))
	for deadline := time.Now().Add(20 * time.Second); uid == "" && time.Now().Before(deadline); wait(t.Context(), 100*time.Millisecond) {
		uid = strings.TrimSpace(c.kubectl("get", "node", node, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"))
	}
	c.await("the new node's mirrors", func(all map[string]seen) bool { return len(all) == 3 && string(all[etcd].owner) == uid })
}
