// Package kubeapitest serves a Kubernetes API from memory, for tests of what writes to one.
//
// It stores objects of any kind and keeps count of who manages which field by the API server's own code, so that
// applying meets the same conflicts. It has no schemas: of a list, all items are one field. It knows no users.
package kubeapitest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/managedfields/managedfieldstest"

	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
)

// Server is an API server. Its fields may be set before it is used.
type Server struct {
	// Refuse, if set, may answer a request with an error of its own: nil lets it through.
	Refuse func(*http.Request) error
	// Stored, if set, is called after each change, while no other request is served; it may change the object.
	Stored func(path string, o *unstructured.Unstructured)

	url string

	mu      sync.Mutex
	version int
	objects map[string]*stored // by path
	changed chan struct{}      // closed at the next change
	log     []string
}

type stored struct {
	fields managedfieldstest.TestFieldManager
	object *unstructured.Unstructured
}

// New returns a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{objects: map[string]*stored{}, changed: make(chan struct{})}
	h := httptest.NewServer(s)
	t.Cleanup(func() { h.CloseClientConnections(); h.Close() })
	s.url = h.URL
	return s
}

// Kubeconfig returns the bytes of a kubeconfig for the server.
func (s *Server) Kubeconfig(t testing.TB) []byte {
	t.Helper()
	c := document.New("fake", s.url, "admin", nil, nil, nil)
	c.Users[0].User.Token = "any"
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// API returns the server as the phases see it.
func (s *Server) API(t testing.TB, overwrite bool) *kubeapi.Live {
	t.Helper()
	data := s.Kubeconfig(t)
	return kubeapi.NewLive(kubeapi.Options{Admin: "/admin.conf", SuperAdmin: "/super-admin.conf", Overwrite: overwrite,
		Read: func(string) ([]byte, error) { return data, nil }})
}

// Object returns a copy of the object at a path such as "/api/v1/namespaces/kube-system/configmaps/x", or nil.
func (s *Server) Object(path string) *unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[path]; o != nil {
		return o.object.DeepCopy()
	}
	return nil
}

// Paths returns where the objects are, sorted.
func (s *Server) Paths() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for p := range s.objects {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

// Log returns the requests that were served since it was last called: "PATCH /api/v1/…".
func (s *Server) Log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Refuse != nil {
		if err := s.Refuse(r); err != nil {
			answer(w, nil, err)
			return
		}
	}
	if r.Method == http.MethodGet && r.URL.Query().Get("watch") == "true" {
		s.watch(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, r.Method+" "+r.URL.Path)
	path, have := r.URL.Path, s.objects[r.URL.Path]
	manager := r.URL.Query().Get("fieldManager")
	body := &unstructured.Unstructured{}
	if data, _ := io.ReadAll(r.Body); r.Method != http.MethodGet && r.Method != http.MethodDelete {
		if err := body.UnmarshalJSON(data); err != nil {
			answer(w, nil, apierrors.NewBadRequest(err.Error()))
			return
		}
	}
	if r.Method == http.MethodPost {
		path += "/" + body.GetName()
		if have = s.objects[path]; have != nil {
			answer(w, nil, apierrors.NewAlreadyExists(resource(path), body.GetName()))
			return
		}
	}
	switch {
	case r.Method == http.MethodGet && have == nil && strings.HasSuffix(path, "s"):
		s.list(w, r)
	case have == nil && r.Method != http.MethodPost && r.Method != http.MethodPatch:
		answer(w, nil, apierrors.NewNotFound(resource(path), path[strings.LastIndexByte(path, '/')+1:]))
	case r.Method == http.MethodGet:
		answer(w, have.object, nil)
	case r.Method == http.MethodDelete:
		delete(s.objects, path)
		s.changedNow()
		answer(w, have.object, nil)
	case r.Method == http.MethodPut && body.GetResourceVersion() != have.object.GetResourceVersion():
		answer(w, nil, apierrors.NewConflict(resource(path), body.GetName(), fmt.Errorf("the object has been modified")))
	default:
		if have == nil {
			have = &stored{fields: managedfieldstest.NewTestFieldManager(managedfields.NewDeducedTypeConverter(), body.GroupVersionKind())}
		}
		o, err := s.put(path, have, body, func() error {
			if r.Method == http.MethodPatch {
				return have.fields.Apply(body, manager, r.URL.Query().Get("force") == "true")
			}
			return have.fields.Update(body, manager)
		})
		answer(w, o, err)
	}
}

// Update changes an object as somebody else does.
func (s *Server) Update(t testing.TB, path, manager string, change func(*unstructured.Unstructured)) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.objects[path]
	o := have.object.DeepCopy()
	change(o)
	if _, err := s.put(path, have, o, func() error { return have.fields.Update(o, manager) }); err != nil {
		t.Fatal(err)
	}
}

// put stores what the change makes of an object, as another version where it is another one.
func (s *Server) put(path string, have *stored, _ *unstructured.Unstructured, change func() error) (*unstructured.Unstructured, error) {
	if err := change(); err != nil {
		return nil, err
	}
	live := have.fields.Live().(*unstructured.Unstructured)
	if have.object != nil {
		live.SetUID(have.object.GetUID())
		live.SetResourceVersion(have.object.GetResourceVersion())
		if same(have.object, live) {
			return have.object, nil
		}
	} else {
		live.SetUID(types.UID(fmt.Sprint("uid-", s.version)))
	}
	if s.Stored != nil {
		s.Stored(path, live)
	}
	s.version++
	live.SetResourceVersion(strconv.Itoa(s.version))
	have.object = live
	s.objects[path] = have
	s.changedNow()
	return live, nil
}

// same compares all but who manages what since when.
func same(a, b *unstructured.Unstructured) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	a.SetManagedFields(nil)
	b.SetManagedFields(nil)
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func (s *Server) changedNow() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	list := map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{}}
	items := []any{}
	for path, o := range s.objects {
		if strings.HasPrefix(path, r.URL.Path+"/") && selected(r, o.object) {
			items = append(items, o.object.Object)
		}
	}
	list["items"] = items
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(list) //nolint:errcheck // the client sees a short answer
}

// selected knows the selectors by name and by type.
func selected(r *http.Request, o *unstructured.Unstructured) bool {
	key, value, _ := strings.Cut(r.URL.Query().Get("fieldSelector"), "=")
	switch key {
	case "metadata.name":
		return o.GetName() == value
	case "type":
		return o.Object["type"] == value
	}
	return true
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	seen := ""
	for {
		s.mu.Lock()
		var event []byte
		for path, o := range s.objects {
			if strings.HasPrefix(path, r.URL.Path+"/") && selected(r, o.object) && o.object.GetResourceVersion() != seen {
				seen = o.object.GetResourceVersion()
				event, _ = json.Marshal(map[string]any{"type": "MODIFIED", "object": o.object.Object})
			}
		}
		changed := s.changed
		s.mu.Unlock()
		if event != nil {
			w.Write(append(event, '\n'))
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func resource(path string) schema.GroupResource {
	parts := strings.Split(path, "/")
	return schema.GroupResource{Resource: parts[len(parts)-2]}
}

func answer(w http.ResponseWriter, o *unstructured.Unstructured, err error) {
	w.Header().Set("Content-Type", "application/json")
	var body any
	if err != nil {
		status := apierrors.NewInternalError(err).Status()
		if known, ok := err.(apierrors.APIStatus); ok {
			status = known.Status()
		}
		status.Kind, status.APIVersion = "Status", "v1"
		w.WriteHeader(int(status.Code))
		body = status
	} else {
		body = o.Object
	}
	json.NewEncoder(w).Encode(body) //nolint:errcheck // the client sees a short answer
}
