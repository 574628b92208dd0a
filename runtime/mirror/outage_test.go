package mirror

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// awaitLog returns once the log has so many lines with text.
func (r *running) awaitLog(t *testing.T, text string, times int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); strings.Count(r.log.String(), text) < times; wait(t.Context(), time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %d lines of %q in:\n%s", times, text, r.log)
		}
	}
}

// TestLongOutageCostsNothing lets many tries fail, which at the usual pace of one every 1.5 s take ten minutes:
// what each of them left behind would show.
func TestLongOutageCostsNothing(t *testing.T) {
	const tries = 400
	for _, tc := range []struct {
		name  string
		slack uint64 // bytes that the fake server itself may have more: it keeps what it was asked
		away  func(*running)
	}{
		{"nobody listens", 1 << 20, func(r *running) {}},
		{"connections end at once", 1 << 20, func(r *running) { listen(t, r.addr, func(c net.Conn) { c.Close() }) }},
		{"the answer is 500", 32 << 20, func(r *running) {
			r.mu.Lock()
			r.busy = func(*http.Request) error { return fail(500, "InternalError", "etcd is away") }
			r.mu.Unlock()
			r.start()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tried := make(chan struct{}, tries)
			began := make(chan struct{})
			r := run(t, newFakeAPI(t), func(m *Mirror) {
				m.pace.eagerFor, m.pace.least, m.pace.most, m.pace.eager = 0, time.Microsecond, time.Microsecond, time.Microsecond
				m.c.Healthy = nil
				m.c.Pressure = func() Pressure { // asked once in each try
					select {
					case <-began:
						tried <- struct{}{}
					default:
					}
					return Pressure{}
				}
			})
			r.board.set(staticPod("etcd", "h1"))
			r.await("a mirror", r.shown(etcd, corev1.PodRunning))
			r.stop()
			tc.away(r)
			close(began)
			skip := func(n int) {
				for range n {
					select {
					case <-tried:
					case <-time.After(20 * time.Second):
						t.Fatal("it has given up")
					}
				}
			}
			least := func() (heap uint64, goroutines int) { // of some: the fake server's connections come and go
				heap, goroutines = footprint()
				for range 10 {
					skip(5)
					h, g := footprint()
					heap, goroutines = min(heap, h), min(goroutines, g)
				}
				return heap, goroutines
			}
			skip(50)
			memory, goroutines := least()
			skip(tries - 150)
			memoryAfter, goroutinesAfter := least()
			t.Logf("heap %d → %d KiB, goroutines %d → %d", memory/1024, memoryAfter/1024, goroutines, goroutinesAfter)
			if memoryAfter > memory+tc.slack || goroutinesAfter > goroutines+10 {
				t.Errorf("an outage costs memory or goroutines")
			}
			if n := strings.Count(r.log.String(), "its view of the pods waits"); n > 2 { // the end of the connection may be another kind than what follows
				t.Errorf("%d lines for one outage:\n%s", n, r.log)
			}
		})
	}
}

func footprint() (heap uint64, goroutines int) {
	runtime.GC()
	runtime.GC() // what a pool or a finalizer kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, runtime.NumGoroutine()
}

// listen serves connections with f until the test ends, or stop is called.
func listen(t *testing.T, addr string, f func(net.Conn)) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
		}
	}()
	stop = func() { l.Close(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestServerThatAcceptsAndNeverAnswers(t *testing.T) {
	f := newFakeAPI(t)
	f.stop()
	var held []net.Conn // an open connection that is collected as garbage is closed
	stop := listen(t, f.addr, func(c net.Conn) { held = append(held, c) })
	r := run(t, f, func(m *Mirror) { m.pace.request = 50 * time.Millisecond })
	r.board.set(staticPod("etcd", "h1"))
	r.awaitLog(t, "waiting for the API server", 1)
	stop()
	for _, c := range held {
		c.Close()
	}
	f.start()
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
}

func TestBusyServerIsLeftAlone(t *testing.T) {
	for _, code := range []int{429, 500, 503} {
		for _, where := range []string{"GET /api/v1/nodes/n1", "GET /api/v1/pods", "POST /api/v1/namespaces/kube-system/pods", "PATCH /api/v1/namespaces/kube-system/pods/etcd-n1/status", "PUT " + leasesPath + "/n1"} {
			t.Run(fmt.Sprint(code, " ", where), func(t *testing.T) {
				f := newFakeAPI(t)
				busy := true
				f.busy = func(r *http.Request) error {
					if busy && r.Method+" "+r.URL.Path == where {
						return &statusError{Code: code, Reason: "TooManyRequests", Message: "try again", RetryAfter: time.Second}
					}
					return nil
				}
				const polite = 100 * time.Millisecond // of the second that the server asks for
				began := time.Now()
				r := run(t, f, func(m *Mirror) { m.pace.polite = polite })
				r.board.set(staticPod("etcd", "h1"))
				r.await("three tries", func() bool { return f.all[where] >= 3 })
				if took := time.Since(began); took < 2*polite {
					t.Errorf("three tries within %s", took)
				}
				r.mu.Lock()
				busy = false
				r.mu.Unlock()
				r.await("the mirror", r.shown(etcd, corev1.PodRunning))
			})
		}
	}
}

func TestCertificateThatHasExpiredIsReplaced(t *testing.T) {
	f := newFakeAPI(t)
	r := &running{fakeAPI: f}
	f.ca.end = time.Now().Add(-time.Minute)
	r = run(t, f, nil)
	r.board.set(staticPod("etcd", "h1"))
	r.awaitLog(t, "the client certificate expired at "+f.ca.end.UTC().Format(time.RFC3339), 1)
	f.ca.end = time.Time{}
	f.ca.writeKubeconfig(r.kubeconfig, f.url(), "system:node:n1", "system:nodes")
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
}

func TestWrongAuthorityIsReported(t *testing.T) {
	f := newFakeAPI(t)
	r := run(t, f, func(m *Mirror) { // before it connects: it looks at the file again only when there is a reason to
		newAuthority(t).writeKubeconfig(m.c.Kubeconfig, f.url(), "system:node:n1", "system:nodes")
	})
	r.board.set(staticPod("etcd", "h1"))
	r.awaitLog(t, "certificate signed by unknown authority", 1)
	f.ca.writeKubeconfig(r.kubeconfig, f.url(), "system:node:n1", "system:nodes")
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
}

func TestKubeconfigThatIsAwayOrBrokenForAWhile(t *testing.T) {
	r := run(t, newFakeAPI(t), nil)
	r.board.set(staticPod("etcd", "h1"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	if err := os.Remove(r.kubeconfig); err != nil { // about to be replaced
		t.Fatal(err)
	}
	r.takeAll()
	r.await("heartbeats go on", func() bool { return r.all["GET /api/v1/nodes/n1"] >= 3 })
	if strings.Contains(r.log.String(), "cannot be asked") {
		t.Error("the connection was given up for want of a file that was read before")
	}
	if err := os.WriteFile(r.kubeconfig, []byte("clusters: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	r.awaitLog(t, "cannot be asked", 1)
	r.ca.writeKubeconfig(r.kubeconfig, r.url(), "system:node:n1", "system:nodes")
	r.board.set(staticPod("etcd", "h2"))
	r.await("the new version", func() bool {
		return r.shown(etcd, corev1.PodRunning)() && r.pods[etcd].Annotations[corev1.MirrorPodAnnotationKey] == "h2"
	})
}

// TestFlappingConnectionIsNotLoggedEachTime lets every connection work until the first mirror is made.
func TestFlappingConnectionIsNotLoggedEachTime(t *testing.T) {
	f := newFakeAPI(t)
	n := 0
	f.busy = func(r *http.Request) error {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/pods") {
			n++
			return fail(401, "Unauthorized", "Unauthorized")
		}
		return nil
	}
	r := run(t, f, func(m *Mirror) { m.pace.brief = time.Minute })
	r.board.set(staticPod("etcd", "h1"))
	r.await("twenty connections", func() bool { return n > 20 })
	if lines := strings.Count(r.log.String(), "\n"); lines > 8 {
		t.Errorf("%d lines:\n%s", lines, r.log)
	}
}
