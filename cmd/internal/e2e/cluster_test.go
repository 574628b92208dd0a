//go:build e2e

package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	joinToken      = "slip0a.0123456789abcdef"
	certificateKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
)

// kubectl runs the real kubectl as the administrator whose rights init has bound.
func kubectl(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, time.Minute, program("kubectl"), append([]string{"--kubeconfig", "/etc/kubernetes/admin.conf", "--cache-dir", t.TempDir()}, args...)...)
}

// clusterObjects are what init writes once the API is up, by namespace ("" for the cluster's) and kind, with kubeadm's
// names.
var clusterObjects = map[string]map[string][]string{
	"": {
		"clusterrole": {"kubeadm:get-nodes", "system:coredns"},
		"clusterrolebinding": {"kubeadm:cluster-admins", "kubeadm:get-nodes", "kubeadm:kubelet-bootstrap", "kubeadm:node-autoapprove-bootstrap",
			"kubeadm:node-autoapprove-certificate-rotation", "kubeadm:apiserver-kubelet-client", "kubeadm:node-proxier", "system:coredns"},
	},
	"kube-public": {
		"configmap": {"cluster-info"}, "role": {"kubeadm:bootstrap-signer-clusterinfo"}, "rolebinding": {"kubeadm:bootstrap-signer-clusterinfo"},
	},
	"kube-system": {
		"configmap":      {"kubeadm-config", "kubelet-config", "coredns", "kube-proxy"},
		"role":           {"kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config", "kubeadm:kubeadm-certs", "kube-proxy"},
		"rolebinding":    {"kubeadm:nodes-kubeadm-config", "kubeadm:kubelet-config", "kubeadm:kubeadm-certs", "kube-proxy"},
		"serviceaccount": {"coredns", "kube-proxy"}, "service": {"kube-dns"},
		"secret": {"bootstrap-token-slip0a", "kubeadm-certs"},
	},
}

// versions returns the resource version of every object, which changes with each change of it. For workloads, whose
// status goes on changing, it is the generation.
func versions(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	read := func(namespace, kind string, names []string, path string) {
		args := append([]string{"get", kind, "-o", "jsonpath={range .items[*]}{.kind} {.metadata.name} {" + path + "}{\"\\n\"}{end}"}, names...)
		if len(names) == 1 { // not a list
			args[3] = "jsonpath={.kind} {.metadata.name} {" + path + "}{\"\\n\"}"
		}
		if namespace != "" {
			args = append(args, "-n", namespace)
		}
		out.WriteString(kubectl(t, args...).must(t, "kubectl get "+kind).stdout)
	}
	for _, namespace := range []string{"", "kube-public", "kube-system"} {
		for _, kind := range []string{"clusterrole", "clusterrolebinding", "configmap", "role", "rolebinding", "serviceaccount", "service", "secret"} {
			if names := clusterObjects[namespace][kind]; len(names) > 0 {
				read(namespace, kind, names, ".metadata.resourceVersion")
			}
		}
	}
	read("kube-system", "deployment", []string{"coredns"}, ".metadata.generation")
	read("kube-system", "daemonset", []string{"kube-proxy"}, ".metadata.generation")
	return out.String()
}

// TestClusterThatOthersJoin is init's second half: what it writes into the cluster, that doing it again changes nothing
// and keeps what a user has changed, and that joining machines find what they need.
func TestClusterThatOthersJoin(t *testing.T) {
	before := take(t)
	again := []string{"init", "--image-archives", archives(), "--token", joinToken, "--upload-certs", "--certificate-key", certificateKey}
	initialised := initialised(t, again[3:]...)
	if line := "kubeadm join "; !strings.Contains(initialised.stdout, line) || strings.Count(initialised.stdout, joinToken) != 1 || strings.Contains(initialised.stderr, joinToken) {
		t.Errorf("the join command is not printed, or the token elsewhere:\n%s%s", initialised.stderr, initialised.stdout)
	}
	t.Run("objects", func(t *testing.T) { versions(t) })
	t.Run("node", nodeIsMarked)
	t.Run("signature", clusterInfoIsSigned)
	t.Run("certificates", certificatesCanBeDecrypted)
	t.Run("again", func(t *testing.T) { sameObjectsAgain(t, again) })
	t.Run("user", userChangesAreKept)
	t.Run("tokens", tokensAreKubeadms)
	slipway(t, "reset", "--force").must(t, "slipway reset")
	same(t, before, take(t))
}

func nodeIsMarked(t *testing.T) {
	type node struct {
		Metadata struct{ Labels map[string]string }
		Spec     struct {
			Unschedulable bool
			Taints        []struct{ Key, Effect string }
		}
	}
	var n node
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	r := kubectl(t, "get", "node", strings.ToLower(host), "-o", "json").must(t, "kubectl get node")
	if err := json.Unmarshal([]byte(r.stdout), &n); err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers", "slipway.dev/static-pods-only"} {
		if v, ok := n.Metadata.Labels[label]; !ok || v != "" {
			t.Errorf("label %s: %q, %v", label, v, ok)
		}
	}
	for _, taint := range []string{"slipway.dev/static-pods-only NoSchedule", "slipway.dev/static-pods-only NoExecute", "node-role.kubernetes.io/control-plane NoSchedule"} {
		if !slices.ContainsFunc(n.Spec.Taints, func(have struct{ Key, Effect string }) bool { return have.Key+" "+have.Effect == taint }) {
			t.Errorf("taint %s is not among %v", taint, n.Spec.Taints)
		}
	}
	if !n.Spec.Unschedulable {
		t.Error("the node without a kubelet is schedulable")
	}
	eventually(t, 10*time.Second, "the DaemonSet's controller", func() string {
		return strings.TrimPrefix(kubectl(t, "-n", "kube-system", "get", "daemonset", "kube-proxy", "-o", "jsonpath={.status.observedGeneration}").stdout, "1")
	})
	if pods := kubectl(t, "-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-proxy", "-o", "name").must(t, "kubectl get pods").stdout; pods != "" {
		t.Errorf("a kube-proxy waits for a kubelet on the node that has none: %s", pods)
	}
}

// clusterInfoIsSigned reads cluster-info as a machine that has nothing but the address, and checks its signature with
// the token: a JWS with HMAC and SHA-256, whose payload is left out.
func clusterInfoIsSigned(t *testing.T) {
	server := kubectl(t, "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").must(t, "kubectl config view").stdout
	ca, err := os.ReadFile("/etc/kubernetes/pki/ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	answer, err := client.Get(server + "/api/v1/namespaces/kube-public/configmaps/cluster-info")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", answer.Status, body, err)
	}
	var info struct{ Data map[string]string }
	if err := json.Unmarshal(body, &info); err != nil {
		t.Fatal(err)
	}
	id, secret, _ := strings.Cut(joinToken, ".")
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"` + id + `"}`))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(header + "." + base64.RawURLEncoding.EncodeToString([]byte(info.Data["kubeconfig"]))))
	if want := header + ".." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)); info.Data["jws-kubeconfig-"+id] != want {
		t.Errorf("the signature is %q, want %q of\n%s", info.Data["jws-kubeconfig-"+id], want, info.Data["kubeconfig"])
	}
	if !strings.Contains(info.Data["kubeconfig"], base64.StdEncoding.EncodeToString(ca)) || !strings.Contains(info.Data["kubeconfig"], "server: "+server) {
		t.Errorf("it does not say where the cluster is, or its authority:\n%s", info.Data["kubeconfig"])
	}
}

// certificatesCanBeDecrypted does what kubeadm join --control-plane does with the certificate key.
func certificatesCanBeDecrypted(t *testing.T) {
	r := kubectl(t, "-n", "kube-system", "get", "secret", "kubeadm-certs", "-o", "json").must(t, "kubectl get secret")
	var secret struct {
		Metadata struct{ OwnerReferences []struct{ Name, Kind string } }
		Data     map[string][]byte
	}
	if err := json.Unmarshal([]byte(r.stdout), &secret); err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(certificateKey)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key", "etcd/ca.crt", "etcd/ca.key"}
	if len(secret.Data) != len(files) {
		t.Errorf("%d files, want %q", len(secret.Data), files)
	}
	for _, file := range files {
		want, err := os.ReadFile(filepath.Join("/etc/kubernetes/pki", file))
		if err != nil {
			t.Fatal(err)
		}
		sealed := secret.Data[strings.ReplaceAll(file, "/", "-")]
		if len(sealed) < gcm.NonceSize() {
			t.Errorf("%s is not in the Secret", file)
			continue
		}
		plain, err := gcm.Open(nil, sealed[:gcm.NonceSize()], sealed[gcm.NonceSize():], nil)
		if err != nil || !bytes.Equal(plain, want) {
			t.Errorf("%s: it decrypts to something else: %v", file, err)
		}
	}
	if owners := secret.Metadata.OwnerReferences; len(owners) != 1 || owners[0].Kind != "Secret" || !strings.HasPrefix(owners[0].Name, "bootstrap-token-") {
		t.Errorf("it belongs to %+v, want a bootstrap token, so that it goes with that", owners)
	}
}

func sameObjectsAgain(t *testing.T, args []string) {
	before := versions(t)
	r := slipway(t, args...).must(t, "a second init")
	if strings.Contains(r.stderr, "created") || strings.Contains(r.stderr, "changed") || strings.Contains(r.stderr, "kept what") {
		t.Errorf("a second init says\n%s", r.stderr)
	}
	if after := versions(t); after != before {
		t.Errorf("a second init changed objects:\n%s", cmp.Diff(before, after))
	}
}

func userChangesAreKept(t *testing.T) {
	kubectl(t, "-n", "kube-system", "scale", "deployment", "coredns", "--replicas", "1").must(t, "scaling CoreDNS")
	kubectl(t, "-n", "kube-system", "patch", "configmap", "coredns", "--field-manager", "operator", "--type", "merge",
		"-p", `{"data":{"Corefile":".:53 {\n    errors\n}\n"}}`).must(t, "changing the Corefile")
	kept := func() string {
		return kubectl(t, "-n", "kube-system", "get", "deployment", "coredns", "-o", "jsonpath={.spec.replicas}").stdout +
			kubectl(t, "-n", "kube-system", "get", "configmap", "coredns", "-o", "jsonpath={.data.Corefile}").stdout
	}
	changed := kept()
	r := slipway(t, "init", "phase", "addon", "coredns").must(t, "slipway init phase addon coredns")
	for _, want := range []string{`warning: ConfigMap kube-system/coredns: kept what somebody else has set: .data.Corefile (set by "operator"`,
		`warning: Deployment kube-system/coredns: kept what somebody else has set: .spec.replicas (set by "kubectl" with subresource "scale"`, "--force-conflicts"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("%q is not in\n%s", want, r.stderr)
		}
	}
	if now := kept(); now != changed || !strings.HasPrefix(now, "1.:53") {
		t.Errorf("the user's values were\n%s\nand are\n%s", changed, now)
	}
	r = slipway(t, "init", "phase", "addon", "coredns", "--force-conflicts").must(t, "slipway init phase addon coredns --force-conflicts")
	if now := kept(); !strings.HasPrefix(now, "2.:53") || !strings.Contains(now, "loadbalance") || strings.Contains(r.stderr, "kept what") {
		t.Errorf("by force they are\n%s\n%s", now, r.stderr)
	}
}

// tokensAreKubeadms has both programs show and make the same tokens.
func tokensAreKubeadms(t *testing.T) {
	kubeadm := func(args ...string) result {
		return run(t, time.Minute, program("kubeadm"), append(args, "--kubeconfig", "/etc/kubernetes/admin.conf")...)
	}
	made := strings.TrimSpace(slipway(t, "token", "create", "--ttl", "2h", "--description", "rack 4").must(t, "slipway token create").stdout)
	byKubeadm := strings.TrimSpace(kubeadm("token", "create", "--ttl", "3h").must(t, "kubeadm token create").stdout)
	list := func(r result) string {
		var lines []string
		for d := json.NewDecoder(strings.NewReader(r.stdout)); ; {
			var token map[string]any
			if err := d.Decode(&token); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%v in\n%s", err, r.stdout)
			}
			text, err := json.Marshal(token)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, string(text))
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	ours := list(slipway(t, "token", "list", "-o", "json").must(t, "slipway token list"))
	if theirs := list(kubeadm("token", "list", "-o", "json").must(t, "kubeadm token list")); ours != theirs {
		t.Errorf("slipway and kubeadm list different tokens:\n%s", cmp.Diff(theirs, ours))
	}
	for _, token := range []string{joinToken, made, byKubeadm} {
		if !strings.Contains(ours, token) {
			t.Errorf("%s is not in\n%s", token, ours)
		}
	}
	if r := slipway(t, "token", "create", made); r.code != 1 || !strings.Contains(r.stderr, "is in the cluster already") {
		t.Errorf("the same token again: exit code %d\n%s", r.code, r.stderr)
	}
	slipway(t, "token", "delete", made, byKubeadm[:6]).must(t, "slipway token delete")
	if r := kubeadm("token", "list").must(t, "kubeadm token list"); strings.Contains(r.stdout, made) || strings.Contains(r.stdout, byKubeadm) {
		t.Errorf("deleted tokens are still there:\n%s", r.stdout)
	}
	if r := slipway(t, "token", "delete", made); r.code != 1 || !strings.Contains(r.stderr, "no token has the id") {
		t.Errorf("deleting it again: exit code %d\n%s", r.code, r.stderr)
	}
	line := slipway(t, "token", "create", "--print-join-command").must(t, "slipway token create --print-join-command").stdout
	token := strings.Fields(line)[4]
	id, _, _ := strings.Cut(token, ".")
	theirs := strings.TrimSpace(kubeadm("token", "create", "--print-join-command").must(t, "kubeadm token create --print-join-command").stdout)
	theirToken := strings.Fields(theirs)[4]
	if strings.TrimSpace(line) != strings.ReplaceAll(theirs, theirToken, token) {
		t.Errorf("slipway prints\n%s\nkubeadm\n%s", line, theirs)
	}
	slipway(t, "token", "delete", id, theirToken).must(t, "slipway token delete")
}
