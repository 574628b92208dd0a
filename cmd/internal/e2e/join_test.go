//go:build e2e

package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	joinedAddress = "10.231.8.2" // of the control plane
	workerAddress = "10.231.8.3"
)

// joinConfig is what a user configures for a cluster with pods on hosts such as these: the kubelet of a worker gets its
// part from the cluster. Cgroups of version 1 and counters of connections that only the machine may set are these hosts'.
const joinConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: 10.244.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack: {maxPerCore: 0}
`

// workload is a program with a service, and a pod to ask it from.
const workload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: tide}
spec:
  replicas: 2
  selector: {matchLabels: {app: tide}}
  template:
    metadata: {labels: {app: tide}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: tide
        image: slipway.dev/subject:1
        args: ["print:high water", "listen::8080", "signal:TERM=0", "forever"]
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: tide}
spec:
  selector: {app: tide}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: asker}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: asker, image: "slipway.dev/subject:1", args: ["signal:TERM=0", "forever"]}
`

// TestJoin brings a worker into a cluster of slipway's with kubeadm and a kubelet as they come, and uses the cluster as
// its users do. Both are hosts of their own on one bridge.
func TestJoin(t *testing.T) {
	bridge := fmt.Sprintf("slip%d", os.Getpid())
	t.Cleanup(func() { // after the hosts' ends
		if _, err := os.Lstat("/sys/class/net/vz-" + bridge); err == nil {
			t.Errorf("the bridge vz-%s is left", bridge)
		}
	})
	control := newHost(t, hostSpec{hostname: "quay", address: joinedAddress, bridge: bridge})
	worker := newWorker(t, "dock", workerAddress, bridge, joinedAddress)
	control.put(t, "/root/cluster.yaml", joinConfig)
	before := control.take(t)
	init := control.run(t, "slipway", "init", "--config", "/root/cluster.yaml", "--apiserver-advertise-address", joinedAddress,
		"--image-archives", "/opt/images").must(t, "slipway init")
	t.Logf("init took %v\n%s%s", init.took.Round(time.Millisecond), init.stderr, init.stdout)

	c := &cluster{control: control, worker: worker, join: joinCommand(t, init.stdout)}
	steps := []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"refused", badCredentialsAreRefused},
		{"join", workerJoins},
		{"add-ons", addonsRunOnTheWorker},
		{"service", serviceAnswers},
		{"logs and exec", logsAndExecReachTheWorker},
		{"static pods", workersStaticPodsShow},
		{"rotate-ca", workerSurvivesRotation},
		{"again", workerLeavesAndJoinsAgain},
	}
	for _, step := range steps {
		start := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.test(t, c) }) {
			c.explain(t)
			break // what follows needs a cluster that works
		}
		t.Logf("%s took %v", step.name, time.Since(start).Round(time.Millisecond))
	}
	t.Run("reset", func(t *testing.T) { resetLeavesNothing(t, control, before) })
}

// cluster is a control plane, a worker, and the line that joins them.
type cluster struct {
	control, worker *debianHost
	join            string
}

// joinLine matches the command as init and token create print it, over two lines or one.
var joinLine = regexp.MustCompile(`kubeadm join \S+ --token (\S+)\s+(?:\\\n\s*)?--discovery-token-ca-cert-hash (sha256:[0-9a-f]{64})`)

func joinCommand(t *testing.T, printed string) string {
	t.Helper()
	line := joinLine.FindString(printed)
	if line == "" {
		t.Fatalf("no join command in\n%s", printed)
	}
	return line
}

// ignored are the checks that fail for these hosts' kernel alone: its cgroups are of version 1, and its configuration is
// not where kubeadm looks for it.
const ignored = " --ignore-preflight-errors=SystemVerification"

// badCredentialsAreRefused tries to join with each part of the command wrong. kubeadm would try for five minutes.
func badCredentialsAreRefused(t *testing.T, c *cluster) {
	parts := joinLine.FindStringSubmatch(c.join)
	token, hash := parts[1], parts[2]
	short := joinCommand(t, c.control.run(t, "slipway", "token", "create", "--ttl", "1s", "--print-join-command").must(t, "slipway token create").stdout)
	expired := joinLine.FindStringSubmatch(short)[1]
	id, _, _ := strings.Cut(expired, ".")
	eventually(t, 30*time.Second, "the token's end", func() string {
		list := c.control.run(t, "slipway", "token", "list").must(t, "slipway token list").stdout
		for line := range strings.Lines(list) {
			if strings.Contains(line, id) && !strings.Contains(line, "expired") {
				return list
			}
		}
		return ""
	})
	id, secret, _ := strings.Cut(token, ".")
	for _, bad := range []struct{ name, token, hash, want string }{
		{"an expired token", expired, hash, "could not find a JWS signature"},
		{"another token", "aaaaaa.0123456789abcdef", hash, "could not find a JWS signature"},
		{"another secret", id + "." + strings.Map(rotate, secret), hash, "failed to verify JWS signature"},
		{"the hash of another CA", token, "sha256:" + strings.Repeat("0", 64), "none of the public keys"},
	} {
		config := "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ntimeouts: {discovery: 3s}\ndiscovery:\n  bootstrapToken: {apiServerEndpoint: '" +
			joinedAddress + ":6443', token: " + bad.token + ", caCertHashes: ['" + bad.hash + "']}\n"
		c.worker.put(t, "/root/join.yaml", config)
		r := c.worker.run(t, "sh", "-c", "kubeadm join --v=5 --config /root/join.yaml"+ignored)
		if r.code == 0 || !strings.Contains(r.stdout+r.stderr, bad.want) {
			t.Errorf("joining with %s: exit code %d, want one that names %q\n%s%s", bad.name, r.code, bad.want, r.stdout, r.stderr)
		}
	}
	if r := c.control.kubectl(t, "get", "node", c.worker.hostname); r.code == 0 {
		t.Error("the worker is a node")
	}
}

// rotate returns another character of a token's alphabet.
func rotate(r rune) rune {
	if r == 'z' {
		return 'a'
	}
	if r == '9' {
		return '0'
	}
	return r + 1
}

func workerJoins(t *testing.T, c *cluster) {
	r := c.worker.run(t, "sh", "-c", c.join+ignored).must(t, c.join)
	t.Logf("%s took %v\n%s%s", c.join, r.took.Round(time.Millisecond), r.stderr, r.stdout)
	c.connect(t)
	checkCertificate(t, c)
}

// connect gives the worker's pods a network, as an operator without a network add-on does: a bridge with the addresses
// that the controller manager gave the node.
func (c *cluster) connect(t *testing.T) {
	t.Helper()
	node := c.worker.hostname
	var subnet string
	eventually(t, 30*time.Second, "the node's pod addresses", func() string {
		r := c.control.kubectl(t, "get", "node", node, "-o", "jsonpath={.spec.podCIDR}")
		subnet = r.stdout
		if subnet == "" {
			return "none; " + r.stderr
		}
		return ""
	})
	list := `{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "` + subnet + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}`
	c.worker.put(t, "/etc/cni/net.d/10-pods.conflist", list)
	c.control.kubectl(t, "wait", "--for=condition=Ready", "node/"+node, "--timeout=90s").must(t, "waiting for the worker")
}

// checkCertificate checks that the kubelet's certificate is the one that the cluster's CA signed for its node.
func checkCertificate(t *testing.T, c *cluster) {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(c.control.root, "etc/kubernetes/pki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	path := "/var/lib/kubelet/pki/kubelet-client-current.pem"
	data := c.worker.run(t, "cat", path).must(t, "reading the kubelet's certificate").stdout
	block, _ := pem.Decode([]byte(data))
	if block == nil {
		t.Fatalf("no certificate in %s", path)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("the kubelet's certificate: %v", err)
	}
	if want := "system:node:" + c.worker.hostname; leaf.Subject.CommonName != want {
		t.Errorf("the kubelet's certificate is for %q, want %q", leaf.Subject.CommonName, want)
	}
}

func addonsRunOnTheWorker(t *testing.T, c *cluster) {
	c.control.kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/kube-proxy", "--timeout=60s").must(t, "waiting for kube-proxy")
	c.control.kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s").must(t, "waiting for CoreDNS")
	for _, app := range []string{"kube-proxy", "kube-dns"} {
		r := c.control.kubectl(t, "-n", "kube-system", "get", "pods", "-l", "k8s-app="+app, "-o", `jsonpath={range .items[*]}{.spec.nodeName} {.status.phase}{"\n"}{end}`).must(t, "the pods of "+app)
		if strings.TrimSpace(strings.ReplaceAll(r.stdout, c.worker.hostname+" Running\n", "")) != "" || r.stdout == "" {
			t.Errorf("pods of %s, want them running on %s alone:\n%s", app, c.worker.hostname, r.stdout)
		}
	}
}

func serviceAnswers(t *testing.T, c *cluster) {
	c.control.put(t, "/root/workload.yaml", workload)
	c.control.kubectl(t, "apply", "-f", "/root/workload.yaml").must(t, "applying the workload")
	c.control.run(t, "rm", "/root/workload.yaml").must(t, "removing the file")
	c.control.kubectl(t, "rollout", "status", "deployment/tide", "--timeout=60s").must(t, "waiting for the deployment")
	c.control.kubectl(t, "wait", "--for=condition=Ready", "pod/asker", "--timeout=60s").must(t, "waiting for the pod that asks")
	address := c.control.kubectl(t, "get", "service", "tide", "-o", "jsonpath={.spec.clusterIP}").must(t, "the service's address").stdout
	for _, host := range []string{address, "tide", "tide.default.svc.cluster.local"} {
		// The first request may come before kube-proxy has the rules.
		eventually(t, 20*time.Second, "an answer from http://"+host, func() string {
			r := c.exec(t, "get:http://"+host+"/flood")
			if r.stdout != "/flood\n" {
				return r.stdout + r.stderr
			}
			return ""
		})
	}
	if r := c.exec(t, "lookup:tide.default.svc.cluster.local").must(t, "asking CoreDNS"); strings.TrimSpace(r.stdout) != address {
		t.Errorf("CoreDNS says %q, the service has %q", r.stdout, address)
	}
	if r := c.exec(t, "lookup:ebb.default.svc.cluster.local"); r.code == 0 {
		t.Errorf("CoreDNS knows a service that is not there: %q", r.stdout)
	}
}

// exec runs the test program in the pod that asks.
func (c *cluster) exec(t *testing.T, steps ...string) result {
	t.Helper()
	return c.control.kubectl(t, append([]string{"exec", "asker", "--", "/usr/local/bin/subject"}, steps...)...)
}

func logsAndExecReachTheWorker(t *testing.T, c *cluster) {
	if r := c.control.kubectl(t, "logs", "deployment/tide").must(t, "kubectl logs"); !strings.Contains(r.stdout, "high water\n") {
		t.Errorf("kubectl logs: %q", r.stdout)
	}
	if r := c.exec(t, "print:ahoy", "exit:7"); r.stdout != "ahoy\n" || r.code != 7 {
		t.Errorf("kubectl exec: exit code %d, %q\n%s", r.code, r.stdout, r.stderr)
	}
}

// workersStaticPodsShow drops manifests into the worker's own directory: its kubelet runs them, the API shows them.
func workersStaticPodsShow(t *testing.T, c *cluster) {
	node := c.worker.hostname
	for name, network := range map[string]string{"buoy": "true", "raft": "false"} {
		path := "/etc/kubernetes/manifests/" + name + ".yaml"
		c.worker.put(t, path, `apiVersion: v1
kind: Pod
metadata: {name: `+name+`}
spec:
  hostNetwork: `+network+`
  terminationGracePeriodSeconds: 1
  containers:
  - {name: `+name+`, image: "slipway.dev/subject:1", args: ["signal:TERM=0", "forever"]}
`)
		pod := name + "-" + node
		eventually(t, 60*time.Second, "the pod "+pod, func() string {
			r := c.control.kubectl(t, "get", "pod", pod, "-o", `jsonpath={.status.phase} {.spec.nodeName} {.metadata.annotations.kubernetes\.io/config\.source} {.status.podIP}`)
			prefix := "Running " + node + " file "
			address, ok := strings.CutPrefix(r.stdout, prefix)
			if !ok || address == "" {
				return r.stdout + r.stderr
			}
			if own := address == workerAddress; own != (network == "true") {
				t.Errorf("%s has the address %s", pod, address)
			}
			return ""
		})
		c.worker.run(t, "rm", path).must(t, "removing the manifest")
		eventually(t, 60*time.Second, "the end of "+pod, func() string {
			return c.control.kubectl(t, "get", "pod", pod, "--ignore-not-found", "-o", "name").stdout
		})
	}
}

// workerSurvivesRotation replaces the cluster's authority: the kubelet goes on as it is until the former one is dropped,
// which is refused until it has been given what slipway prints for it, by the words of docs/operations.md. That a machine
// joins with the next authority is shown by the step after this.
func workerSurvivesRotation(t *testing.T, c *cluster) {
	node := c.worker.hostname
	r := c.control.run(t, "slipway", "certs", "rotate-ca").must(t, "slipway certs rotate-ca")
	t.Logf("rotate-ca took %v\n%s%s", r.took.Round(time.Millisecond), r.stderr, r.stdout)
	c.control.kubectl(t, "logs", "deployment/tide").must(t, "kubectl logs, in the overlap")
	refused := c.control.run(t, "slipway", "certs", "rotate-ca", "finish")
	if refused.code != 1 || !strings.Contains(refused.stderr, "workers "+node) {
		t.Fatalf("finish: exit code %d\n%s%s", refused.code, refused.stdout, refused.stderr)
	}
	conf := c.control.run(t, "slipway", "kubeconfig", "user", "--client-name", "system:node:"+node, "--org", "system:nodes").must(t, "slipway kubeconfig user").stdout
	ca := c.control.run(t, "cat", "/etc/kubernetes/pki/ca.crt").must(t, "reading the authorities").stdout
	c.worker.put(t, "/etc/kubernetes/kubelet.conf", conf)
	c.worker.put(t, "/etc/kubernetes/pki/ca.crt", ca)
	c.worker.run(t, "sh", "-ec", "rm -f /var/lib/kubelet/pki/kubelet-client-*.pem && systemctl restart kubelet").must(t, "restarting the kubelet")
	eventually(t, time.Minute, "the kubelet's new certificate", func() string {
		return c.worker.run(t, "sh", "-c", "test -e /var/lib/kubelet/pki/kubelet-client-current.pem || echo it is not there").stdout
	})
	c.worker.run(t, "sed", "-i", "-E", `s#client-(certificate|key)-data:.*#client-\1: /var/lib/kubelet/pki/kubelet-client-current.pem#`, "/etc/kubernetes/kubelet.conf").must(t, "naming the certificate")
	for _, pods := range []string{"daemonset/kube-proxy", "deployment/coredns"} {
		c.control.kubectl(t, "-n", "kube-system", "rollout", "restart", pods).must(t, "restarting "+pods)
		c.control.kubectl(t, "-n", "kube-system", "rollout", "status", pods, "--timeout=90s").must(t, "waiting for "+pods)
	}
	r = c.control.run(t, "slipway", "certs", "rotate-ca", "finish").must(t, "slipway certs rotate-ca finish")
	t.Logf("finish took %v\n%s%s", r.took.Round(time.Millisecond), r.stderr, r.stdout)
	checkCertificate(t, c)
	c.worker.run(t, "systemctl", "restart", "kubelet").must(t, "restarting the kubelet, whose kubelet.conf names its certificate")
	eventually(t, time.Minute, "the kubelet that started again", func() string { // its Node is Ready all the time
		if r := c.control.kubectl(t, "logs", "deployment/tide"); r.code != 0 {
			return r.stderr
		}
		return ""
	})
	logsAndExecReachTheWorker(t, c)
	serviceAnswers(t, c)
}

// workerLeavesAndJoinsAgain takes the worker out as kubeadm's users do, and in again with a line of its own.
func workerLeavesAndJoinsAgain(t *testing.T, c *cluster) {
	node := c.worker.hostname
	c.control.kubectl(t, "drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s").must(t, "kubectl drain")
	c.worker.run(t, "kubeadm", "reset", "--force").must(t, "kubeadm reset on the worker")
	// What belongs to the network of the pods is its operator's to remove: the node may get other addresses next time.
	c.worker.run(t, "sh", "-ec", "rm -rf /etc/cni/net.d/10-pods.conflist /var/lib/cni; ip link delete cni0").must(t, "removing the pods' network")
	c.control.kubectl(t, "delete", "node", node).must(t, "kubectl delete node")
	c.join = joinCommand(t, c.control.run(t, "slipway", "token", "create", "--print-join-command").must(t, "slipway token create").stdout)
	workerJoins(t, c)
	c.control.kubectl(t, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=90s").must(t, "waiting for CoreDNS")
	serviceAnswers(t, c)
}

// explain logs what a failure here is usually explained by.
func (c *cluster) explain(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"get", "nodes,pods", "-A", "-o", "wide"}, {"describe", "pods", "-A"}} {
		t.Logf("kubectl %s:\n%s", strings.Join(args, " "), tail(c.control.kubectl(t, args...).stdout, 150))
	}
	t.Logf("the worker's kubelet:\n%s", c.worker.run(t, "journalctl", "--no-pager", "-n", "60", "-u", "kubelet").stdout)
}
