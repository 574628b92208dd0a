//go:build e2e

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// TestCertificates lives through what happens to certificates on one control plane.
func TestCertificates(t *testing.T) {
	initialised(t)
	eventually(t, time.Minute, "the control plane", healthy(t, controlPlane...))
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"renew", renewIsServed},
		{"expired while off", expiredWhileOff},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

// servedAt returns the certificate that a server shows.
func servedAt(t *testing.T, address string) *x509.Certificate {
	t.Helper()
	var shown *x509.Certificate
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		shown = s.PeerCertificates[0]
		return nil
	}})
	if shown == nil {
		t.Fatalf("%s shows no certificate: %v", address, err)
	}
	if conn != nil {
		conn.Close()
	}
	return shown
}

// onDisk returns a certificate file's first.
func onDisk(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

var servers = map[string]string{"127.0.0.1:6443": "/etc/kubernetes/pki/apiserver.crt", "127.0.0.1:2379": "/etc/kubernetes/pki/etcd/server.crt"}

func clusterAnswers(t *testing.T) {
	t.Helper()
	for _, file := range []string{"super-admin.conf", "admin.conf"} {
		run(t, time.Minute, program("kubectl"), "--kubeconfig", "/etc/kubernetes/"+file, "--cache-dir", t.TempDir(), "get", "namespaces").must(t, "kubectl get namespaces as "+file)
	}
	// The controller manager and the scheduler write with their own certificates.
	superKubectl(t, "create", "namespace", "pier").must(t, "creating a namespace")
	eventually(t, time.Minute, "the controller manager's work", func() string {
		return superKubectl(t, "-n", "pier", "get", "serviceaccount", "default").stderr
	})
	superKubectl(t, "delete", "namespace", "pier", "--wait", "--timeout=60s").must(t, "deleting the namespace")
}

// renewIsServed: new serials on the wire, one restart of each component, and a cluster that goes on.
func renewIsServed(t *testing.T) {
	before := ps(t)
	old := map[string]*x509.Certificate{}
	for address := range servers {
		old[address] = servedAt(t, address)
	}
	r := slipway(t, "certs", "renew", "all").must(t, "slipway certs renew all")
	t.Logf("renew took %v\n%s%s", r.took.Round(time.Millisecond), r.stderr, r.stdout)
	for address, file := range servers {
		now := servedAt(t, address)
		if now.Equal(old[address]) || !now.Equal(onDisk(t, file)) {
			t.Errorf("%s serves serial %x; before %x, on disk %x", address, now.SerialNumber, old[address].SerialNumber, onDisk(t, file).SerialNumber)
		}
	}
	eventually(t, time.Minute, "health", healthy(t, controlPlane...))
	after := ps(t)
	for _, name := range controlPlane {
		restarts := after[name].Attempt - before[name].Attempt
		// The two that lead by a lease in the API may have ended by themselves while the API server was away.
		if leads := name == "kube-controller-manager" || name == "kube-scheduler"; restarts != 1 && !(leads && restarts > 1) {
			t.Errorf("%s was restarted %d times", name, restarts)
		}
	}
	clusterAnswers(t)
	if r := slipway(t, "certs", "check-expiration"); r.code != 0 {
		t.Errorf("check-expiration: exit code %d\n%s", r.code, r.stdout)
	}
}

// expiredWhileOff: every leaf has ended when the supervisor starts, two components have died, the others still run with
// what they read long ago. All is renewed, and comes back by itself.
func expiredWhileOff(t *testing.T) {
	pid := supervisorPID(t)
	killed := []string{pidOf(t, "etcd"), pidOf(t, "kube-apiserver")}
	stopProcess(t, fmt.Sprint(pid), syscall.SIGTERM)
	expire(t)
	for _, p := range killed {
		stopProcess(t, p, syscall.SIGKILL) // as when the power goes
	}
	if r := slipway(t, "certs", "check-expiration"); r.code != 2 || !strings.Contains(r.stdout, "expired") {
		t.Fatalf("check-expiration: exit code %d\n%s", r.code, r.stdout)
	}
	slipway(t, "init", "phase", "supervisor", "supervise").must(t, "starting the supervisor again")
	eventually(t, 3*time.Minute, "new certificates", func() string {
		if r := slipway(t, "certs", "check-expiration"); r.code != 0 {
			return r.stdout
		}
		return ""
	})
	eventually(t, 3*time.Minute, "the components", func() string {
		for address, file := range servers {
			conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
			if err != nil && !strings.Contains(err.Error(), "certificate") {
				return err.Error()
			}
			if conn != nil {
				shown := conn.ConnectionState().PeerCertificates[0]
				conn.Close()
				if !shown.Equal(onDisk(t, file)) {
					return address + " serves the old certificate"
				}
			}
		}
		return healthy(t, controlPlane...)()
	})
	clusterAnswers(t)
	r := slipway(t, "events")
	if !strings.Contains(r.stdout, "CertificateRenewed") {
		t.Errorf("slipway events tells of no renewal:\n%s", r.stdout)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", supervisorPID(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log("the supervisor: " + line)
		}
	}
}

// expire puts certificates that ended an hour ago in the place of all that can be renewed.
func expire(t *testing.T) {
	t.Helper()
	paths := config.NewPaths("")
	items := renewal.Survey(artifact.Disk{}, paths)
	authorities, err := renewal.Authorities(artifact.Disk{}, paths, items, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range items {
		r := pki.RequestLike(it.Cert, time.Now())
		r.NotBefore, r.NotAfter = time.Now().Add(-366*24*time.Hour), time.Now().Add(-time.Hour) // a year, as init makes them
		if err := renewal.Renew(artifact.Disk{}, paths, it, r, authorities[it.CA]); err != nil {
			t.Fatal(err)
		}
	}
}

// stopProcess ends a process and waits for its end.
func stopProcess(t *testing.T, pid string, signal syscall.Signal) {
	t.Helper()
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil {
		t.Fatalf("pid %q: %v", pid, err)
	}
	if err := syscall.Kill(n, signal); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the end of process "+pid, func() string {
		if err := syscall.Kill(n, 0); err == nil {
			return "it is still there"
		}
		return ""
	})
}

// poller asks the API server, as a client that knows nothing of the rotation, until it is stopped.
type poller struct {
	stop    chan struct{}
	done    chan struct{}
	asked   int
	failed  int
	longest time.Duration // without an answer
	last    error
}

// clientOf returns an HTTP client with what a kubeconfig holds now, and the server that it names. Each request is a
// connection of its own, and shows anew whom the client trusts and who trusts it.
func clientOf(t *testing.T, path string) (*http.Client, string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cluster, user, err := document.Load(data, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(user.User.ClientCertificateData, user.User.ClientKeyData)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cluster.CertificateAuthorityData)
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}, cluster.Server
}

// poll takes a kubeconfig's contents as they are now.
func poll(t *testing.T, path string) *poller {
	t.Helper()
	client, server := clientOf(t, path)
	p := &poller{stop: make(chan struct{}), done: make(chan struct{})}
	go func() { // ended by end, which waits for it
		defer close(p.done)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		good := time.Now()
		for {
			select {
			case <-p.stop:
				return
			case <-ticker.C:
			}
			p.asked++
			resp, err := client.Get(server + "/api/v1/namespaces/kube-system")
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					err = fmt.Errorf("HTTP %d", resp.StatusCode)
				}
			}
			if err != nil {
				p.failed, p.last = p.failed+1, err
				p.longest = max(p.longest, time.Since(good))
				continue
			}
			good = time.Now()
		}
	}()
	return p
}

func (p *poller) end(t *testing.T, what string, limit time.Duration) {
	t.Helper()
	close(p.stop)
	<-p.done
	t.Logf("%s: %d of %d requests failed, the longest time without an answer was %v, the last error: %v", what, p.failed, p.asked, p.longest.Round(10*time.Millisecond), p.last)
	if p.longest > limit || p.asked == 0 {
		t.Errorf("%s: no answer for %v, of %d requests %d failed; the last error: %v", what, p.longest, p.asked, p.failed, p.last)
	}
}
