//go:build bench

package bench

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/yaml"
)

// healthURLs are where the components say that they work: on the loopback address, with kubeadm's ports, open to
// anonymous clients.
var healthURLs = map[string]string{
	"etcd":                    "http://127.0.0.1:2381/readyz",
	"kube-apiserver":          "https://127.0.0.1:6443/readyz",
	"kube-controller-manager": "https://127.0.0.1:10257/healthz",
	"kube-scheduler":          "https://127.0.0.1:10259/healthz",
}

const (
	// askEvery bounds the error of a measured moment. A component is not asked again once it was healthy.
	askEvery = 10 * time.Millisecond
	// askLeaseEvery is longer: each question costs the API server, while others still come up.
	askLeaseEvery = 50 * time.Millisecond
	// healthyWithin is ten times what a control plane needs on a machine with two cores.
	healthyWithin = time.Minute
)

// arrivals are the moments, after a start, at which components first said that they work.
type arrivals map[string]time.Duration

func (a arrivals) ready() time.Duration { return a["kube-apiserver"] }

// all returns the moment from which every component was healthy.
func (a arrivals) all() time.Duration {
	var last time.Duration
	for name := range healthURLs {
		last = max(last, a[name])
	}
	return last
}

// atWork returns the moment from which both controllers held their leases. They say that they are healthy before there
// is an API server to work with, and then may sit in a pause between two tries to reach it.
func (a arrivals) atWork() time.Duration { return max(a[leaseOf[0]], a[leaseOf[1]]) }

// leaseOf names the leases of the components that elect a leader.
var leaseOf = [2]string{"lease kube-controller-manager", "lease kube-scheduler"}

// watch asks all components until each is healthy.
type watch struct {
	cancel context.CancelFunc
	asking sync.WaitGroup
	ready  chan struct{} // closed when the API server is healthy

	mu   sync.Mutex
	seen arrivals
	last map[string]error // why a component was not healthy when it was asked last
}

// watchHealth starts asking. The moments count from start. Once the API server is ready, it reads the leases with the
// credentials of that kubeconfig. The caller must call wait or abandon.
func watchHealth(ctx context.Context, start time.Time, kubeconfig string) *watch {
	ctx, cancel := context.WithTimeout(ctx, 2*healthyWithin)
	w := &watch{cancel: cancel, ready: make(chan struct{}), seen: arrivals{}, last: map[string]error{}}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the certificates are made during the measurement
	}}
	for name, url := range healthURLs {
		w.asking.Go(func() { w.ask(ctx, askEvery, start, name, func() error { return healthy(ctx, client, url) }) })
	}
	for _, name := range leaseOf {
		w.last[name] = errors.New("the API server is not ready")
	}
	w.asking.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-w.ready:
		}
		client, err := adminClient(kubeconfig)
		for _, name := range leaseOf {
			if err != nil {
				w.note(name, 0, err)
				continue
			}
			w.asking.Go(func() { w.ask(ctx, askLeaseEvery, start, name, func() error { return leads(ctx, client, name) }) })
		}
	})
	return w
}

func (w *watch) ask(ctx context.Context, every time.Duration, start time.Time, name string, question func() error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		err := question()
		w.note(name, time.Since(start), err)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func healthy(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// leads returns nil when somebody holds the lease.
func leads(ctx context.Context, client *http.Client, name string) error {
	url := "https://127.0.0.1:6443/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/" + strings.TrimPrefix(name, "lease ")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var lease coordinationv1.Lease
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&lease); err != nil {
		return err
	}
	if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return errors.New("nobody holds it")
	}
	return nil
}

// adminClient has the client certificate of a kubeconfig.
func adminClient(kubeconfig string) (*http.Client, error) {
	data, err := os.ReadFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading credentials: %w", err)
	}
	var file struct {
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil || len(file.Users) != 1 {
		return nil, fmt.Errorf("reading credentials from %q: %d users: %w", kubeconfig, len(file.Users), err)
	}
	pair, err := tls.X509KeyPair(file.Users[0].User.Cert, file.Users[0].User.Key)
	if err != nil {
		return nil, fmt.Errorf("reading credentials from %q: %w", kubeconfig, err)
	}
	return &http.Client{Timeout: time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}},
	}}, nil
}

func (w *watch) note(name string, at time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[name] = err
	if err != nil {
		return
	}
	w.seen[name] = at
	if name == "kube-apiserver" {
		close(w.ready)
	}
}

// wait returns when every component was healthy and at work, or with the reason why one is not.
func (w *watch) wait() (arrivals, error) {
	limit := time.AfterFunc(healthyWithin, w.cancel)
	defer limit.Stop()
	w.asking.Wait()
	w.cancel()
	var late []string
	for name, err := range w.last {
		if err != nil {
			late = append(late, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if late == nil {
		return w.seen, nil
	}
	slices.Sort(late)
	return nil, fmt.Errorf("not healthy: %s", strings.Join(late, "; "))
}

// abandon ends the asking without a result.
func (w *watch) abandon() {
	w.cancel()
	w.asking.Wait()
}

// portsFree refuses a machine on which one of the ports is taken: the measurement would be of something else.
func portsFree(ctx context.Context) error {
	var dialer net.Dialer
	for _, port := range []string{"2379", "2380", "2381", "6443", "10250", "10257", "10259"} {
		conn, err := dialer.DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
			return fmt.Errorf("port %s is taken; end what listens there (ss -ltnp)", port)
		}
	}
	return nil
}
