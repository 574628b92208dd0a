//go:build e2e

package pods

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
)

// page is a web page that changes.
type page struct {
	mu     sync.Mutex
	status int
	text   string
	asked  int
}

func (p *page) set(status int, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.text, p.asked = status, text, 0
}

// read tells how often the present text was asked for.
func (p *page) read() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Header.Get("X-Token") != "a secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	p.asked++
	w.WriteHeader(p.status)
	w.Write([]byte(p.text)) //nolint:errcheck // the reader is gone
}

// TestDirectoryAndURL reads pods from a directory and a URL at once. Whatever a server answers, its pods go on until it
// says that there are none.
func TestDirectoryAndURL(t *testing.T) {
	t.Parallel()
	served := &page{}
	remote := podtest.Pod("remote").Container("main", "forever").YAML()
	served.set(http.StatusOK, remote)
	server := httptest.NewServer(served)
	defer server.Close()
	n := podtest.New(t, podtest.Options{Kubelet: map[string]any{"httpCheckFrequency": "200ms"}})
	n.Supervise("--manifest-url", server.URL, "--manifest-url-header", "X-Token: a secret")
	local := running(n)
	before := n.WaitRunning("remote", "main", patience)
	waitReady(n, "remote")
	if got := before.Annotations["kubernetes.io/config.source"]; got != "" {
		t.Logf("config.source on the container: %q", got)
	}
	json, err := yaml.YAMLToJSON([]byte(remote))
	if err != nil {
		t.Fatal(err)
	}
	const list = `{"apiVersion":"v1","kind":"PodList","items":[`
	for name, answer := range map[string]struct {
		status int
		text   string
	}{
		"the same as JSON":   {http.StatusOK, string(json)},
		"the same in a list": {http.StatusOK, list + string(json) + "]}"},
		"an error":           {http.StatusInternalServerError, "oops"},
		"a login page":       {http.StatusOK, "<html>log in</html>"},
		"nothing":            {http.StatusOK, ""},
		"half a pod":         {http.StatusOK, remote[:len(remote)/2]},
	} {
		served.set(answer.status, answer.text)
		n.WaitFor(name+" to be read twice", patience, func() (bool, string) { return served.read() > 1, "" })
		untouched(t, n, "remote", before)
		if problems := n.Slipway("status").Stdout; strings.Contains(problems, "a secret") {
			t.Errorf("the status prints a header:\n%s", problems)
		}
	}
	server.CloseClientConnections()
	served.set(http.StatusOK, list+"]}")
	n.WaitGone("remote", patience)
	untouched(t, n, "web", local)
}

// TestDirectoryIsReplaced moves the manifest directory away and puts another one in its place, and reads a manifest
// through a chain of links.
func TestDirectoryIsReplaced(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{Kubelet: map[string]any{"fileCheckFrequency": "1s"}})
	n.Supervise()
	before := running(n)
	old := n.Manifests + ".old"
	if err := os.Rename(n.Manifests, old); err != nil {
		t.Fatal(err)
	}
	pause(t, 2500*time.Millisecond) // two listings
	untouched(t, n, "web", before)
	real := filepath.Join(n.Dir, "real")
	if err := os.MkdirAll(real, 0o755); err != nil {
		t.Fatal(err)
	}
	linked := filepath.Join(real, "linked.data")
	if err := os.WriteFile(linked, []byte(podtest.Pod("linked").Container("main", "forever").YAML()), 0o644); err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(n.Dir, "next")
	if err := os.MkdirAll(next, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(next, "web.yaml"), []byte(web()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(linked, filepath.Join(next, "linked.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, n.Manifests); err != nil {
		t.Fatal(err)
	}
	first := n.WaitRunning("linked", "main", patience)
	untouched(t, n, "web", before)
	if err := os.WriteFile(linked, []byte(podtest.Pod("linked").Container("main", "print:edited", "forever").YAML()), 0o644); err != nil {
		t.Fatal(err)
	}
	n.WaitFor("the edit behind the link", patience, func() (bool, string) {
		c, found := n.Running("linked", "main")
		return found && c.ID != first.ID, n.Describe("linked")
	})
	untouched(t, n, "web", before)
}

// TestSlowWriter writes a manifest in two pieces with a long pause between them.
func TestSlowWriter(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{Kubelet: map[string]any{"fileCheckFrequency": "100ms"}})
	n.Supervise()
	n.PutSlow("web.yaml", web(), time.Second)
	before := n.WaitRunning("web", "main", patience)
	n.PutSlow("web.yaml", web(), time.Second) // the same again: meanwhile it is no pod
	pause(t, 500*time.Millisecond)
	untouched(t, n, "web", before)
}
