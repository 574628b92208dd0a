//go:build bench

package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
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
	// healthyWithin is ten times what a control plane needs on a machine with two cores.
	healthyWithin = time.Minute
)

// arrivals are the moments, after a start, at which components first said that they work.
type arrivals map[string]time.Duration

func (a arrivals) ready() time.Duration { return a["kube-apiserver"] }

// all returns the moment from which every component was healthy.
func (a arrivals) all() time.Duration {
	var last time.Duration
	for _, at := range a {
		last = max(last, at)
	}
	return last
}

// watch asks all components until each is healthy.
type watch struct {
	cancel context.CancelFunc
	asking sync.WaitGroup
	ready  chan struct{} // closed when the API server is healthy

	mu   sync.Mutex
	seen arrivals
	last map[string]error // why a component was not healthy when it was asked last
}

// watchHealth starts asking. The moments count from start. The caller must call wait or abandon.
func watchHealth(ctx context.Context, start time.Time) *watch {
	ctx, cancel := context.WithTimeout(ctx, 2*healthyWithin)
	w := &watch{cancel: cancel, ready: make(chan struct{}), seen: arrivals{}, last: map[string]error{}}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the certificates are made during the measurement
	}}
	for name, url := range healthURLs {
		w.asking.Go(func() { w.ask(ctx, client, start, name, url) })
	}
	return w
}

func (w *watch) ask(ctx context.Context, client *http.Client, start time.Time, name, url string) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		err := healthy(ctx, client, url)
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

// wait returns when every component was healthy, or with the reason why one is not.
func (w *watch) wait() (arrivals, error) {
	limit := time.AfterFunc(healthyWithin, w.cancel)
	defer limit.Stop()
	w.asking.Wait()
	w.cancel()
	if len(w.seen) == len(healthURLs) {
		return w.seen, nil
	}
	var late []string
	for name := range healthURLs {
		if _, ok := w.seen[name]; !ok {
			late = append(late, fmt.Sprintf("%s: %v", name, w.last[name]))
		}
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
