package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
)

// Options say which API server Live talks to, and as whom.
type Options struct {
	// Server is the URL of the API server, "" for the one that the kubeconfig names. It is this node's own, reached
	// without a proxy: the endpoint that the cluster is known by may not lead here yet.
	Server string
	// Admin and SuperAdmin are the paths of the kubeconfigs. They are read when they are first used.
	Admin, SuperAdmin string
	// Read reads a file.
	Read func(path string) ([]byte, error)
	// Overwrite has Apply overwrite what somebody else has set, instead of keeping it.
	Overwrite bool
}

// Live talks to an API server. Use NewLive.
type Live struct {
	*shared
	super bool
}

// shared is what a Live has in common with its AsSuperAdmin.
type shared struct {
	options Options
	clients [2]client // the administrator's, the super administrator's
	// granted is when the super administrator last wrote, in Unix milliseconds: what the administrator may do follows
	// from it, and takes a moment to get around.
	granted atomic.Int64
}

type client struct {
	once    sync.Once
	dynamic *dynamic.DynamicClient
	err     error
}

// NewLive returns an API that connects when it is first used.
func NewLive(o Options) *Live { return &Live{shared: &shared{options: o}} }

// AsSuperAdmin implements API.
func (l *Live) AsSuperAdmin() API { return &Live{shared: l.shared, super: true} }

const (
	// attempt bounds one request, so that a server which takes it and never answers is asked again.
	attempt = 15 * time.Second
	// firstPause and longestPause are between two attempts: short at first, because an API server that has just
	// started lacks its namespaces and bindings for some milliseconds.
	firstPause, longestPause = 5 * time.Millisecond, 500 * time.Millisecond
	// grace is how long a right that was just given may take to reach the API server's authorizer.
	grace = 10 * time.Second
)

// Apply implements API.
func (l *Live) Apply(ctx context.Context, o *unstructured.Unstructured, report func(Report)) error {
	r := RefOf(o)
	wanted, kept := o.DeepCopy(), []conflict(nil)
	var before, after *unstructured.Unstructured
	err := l.call(ctx, "applying", r, func(ctx context.Context, c dynamic.ResourceInterface) error {
		var err error
		if before, err = c.Get(ctx, r.Name, metav1.GetOptions{}); err != nil && !isNoSuchObject(err, r) {
			return err
		}
		for {
			after, err = c.Apply(ctx, r.Name, wanted, metav1.ApplyOptions{FieldManager: FieldManager, Force: l.options.Overwrite})
			found := conflictsOf(err)
			if len(found) == 0 {
				return err
			}
			for _, f := range found {
				if !f.cut(wanted.Object) {
					return err // what the server names is not what we sent
				}
			}
			kept = append(kept, found...)
		}
	})
	if err != nil {
		return err
	}
	switch {
	case before == nil || before.GetUID() != after.GetUID():
		report(Report{Text: "created " + r.String()})
	case before.GetResourceVersion() != after.GetResourceVersion() && !equal(before, after):
		report(Report{Text: "changed " + r.String()})
	}
	if len(kept) > 0 {
		report(Report{Text: keptText(r, kept), Warning: true})
	}
	return nil
}

// Create implements API.
func (l *Live) Create(ctx context.Context, o *unstructured.Unstructured, report func(Report)) error {
	r := RefOf(o)
	err := l.call(ctx, "creating", r, func(ctx context.Context, c dynamic.ResourceInterface) error {
		_, err := c.Create(ctx, o, metav1.CreateOptions{FieldManager: FieldManager})
		return err
	})
	if err == nil {
		report(Report{Text: "created " + r.String()})
	}
	return err
}

// Edit implements API.
func (l *Live) Edit(ctx context.Context, r Ref, words string, change func(*unstructured.Unstructured) error, report func(Report)) error {
	if err := l.await(ctx, r, "is there", func(*unstructured.Unstructured) bool { return true }); err != nil {
		return err
	}
	changed := false
	err := l.call(ctx, "changing", r, func(ctx context.Context, c dynamic.ResourceInterface) error {
		o, err := c.Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		before := o.DeepCopy()
		if err := change(o); err != nil {
			return &final{err}
		}
		if changed = !equal(before, o); !changed {
			return nil
		}
		_, err = c.Update(ctx, o, metav1.UpdateOptions{FieldManager: FieldManager}) // refused if somebody was faster
		return err
	})
	if err == nil && changed {
		report(Report{Text: fmt.Sprintf("changed %s: %s", r, words)})
	}
	return err
}

// Await implements API.
func (l *Live) Await(ctx context.Context, r Ref, words string, done func(*unstructured.Unstructured) bool, _ func(Report)) error {
	return l.await(ctx, r, words, done)
}

func (l *Live) await(ctx context.Context, r Ref, words string, done func(*unstructured.Unstructured) bool) error {
	doing := fmt.Sprintf("waiting until it %s:", words)
	return l.call(ctx, doing, r, func(ctx context.Context, c dynamic.ResourceInterface) error {
		w, err := c.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", r.Name).String()})
		if err != nil {
			return err
		}
		defer w.Stop()
		for e := range w.ResultChan() { // begins with the object as it is, and ends with ctx
			o, ok := e.Object.(*unstructured.Unstructured)
			switch {
			case e.Type == watch.Error && ctx.Err() == nil: // else it is the end of ctx, in other words
				return apierrors.FromObject(e.Object)
			case ok && e.Type != watch.Deleted && done(o):
				return nil
			}
		}
		return errPending
	})
}

// errPending is an attempt that ended before what it waited for came.
var errPending = errors.New("it has not happened yet")

// Delete implements API.
func (l *Live) Delete(ctx context.Context, r Ref, report func(Report)) error {
	err := l.call(ctx, "deleting", r, func(ctx context.Context, c dynamic.ResourceInterface) error {
		return c.Delete(ctx, r.Name, metav1.DeleteOptions{})
	})
	if err == nil {
		report(Report{Text: "deleted " + r.String()})
	}
	return err
}

// Get implements API.
func (l *Live) Get(ctx context.Context, r Ref) (*unstructured.Unstructured, error) {
	var o *unstructured.Unstructured
	err := l.call(ctx, "reading", r, func(ctx context.Context, c dynamic.ResourceInterface) (err error) {
		o, err = c.Get(ctx, r.Name, metav1.GetOptions{})
		return err
	})
	return o, err
}

// List implements API.
func (l *Live) List(ctx context.Context, r Ref, fields string) ([]unstructured.Unstructured, error) {
	var list *unstructured.UnstructuredList
	err := l.call(ctx, "listing", r, func(ctx context.Context, c dynamic.ResourceInterface) (err error) {
		list, err = c.List(ctx, metav1.ListOptions{FieldSelector: fields})
		return err
	})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// call tries until the server answers for good or ctx ends.
func (l *Live) call(ctx context.Context, doing string, r Ref, try func(context.Context, dynamic.ResourceInterface) error) error {
	c, err := l.resource(r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", doing, r, err)
	}
	pause := firstPause
	for {
		limited, cancel := context.WithTimeout(ctx, attempt)
		err := try(limited, c)
		cancel()
		if err == nil {
			if l.super {
				l.granted.Store(time.Now().UnixMilli())
			}
			return nil
		}
		again := transient(err) || apierrors.IsForbidden(err) && !l.super && time.Since(time.UnixMilli(l.granted.Load())) < grace
		if !again || !pauseFor(ctx, max(pause, retryAfter(err))) {
			return fmt.Errorf("%s %s: %w", doing, r, l.explain(ctx, err))
		}
		pause = min(2*pause, longestPause)
	}
}

// pauseFor waits, and returns false when ctx ends before that.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// resource is the part of the API that the Ref is about.
func (l *Live) resource(r Ref) (dynamic.ResourceInterface, error) {
	c, path := &l.clients[0], l.options.Admin
	if l.super {
		c, path = &l.clients[1], l.options.SuperAdmin
	}
	c.once.Do(func() { c.dynamic, c.err = l.options.connect(path) })
	if c.err != nil {
		return nil, c.err
	}
	plural, _ := meta.UnsafeGuessKindToResource(r.groupVersionKind()) // right for every kind that slipway writes
	if r.Namespace == "" {
		return c.dynamic.Resource(plural), nil
	}
	return c.dynamic.Resource(plural).Namespace(r.Namespace), nil
}

// connect returns a client for the kubeconfig at path.
func (o Options) connect(path string) (*dynamic.DynamicClient, error) {
	data, err := o.Read(path)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	dir := path[:strings.LastIndexByte(path, '/')+1]
	cluster, user, err := document.Load(data, dir, o.Read)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %q: %w", path, err)
	}
	c := &rest.Config{
		Host: cluster.Server, UserAgent: FieldManager, QPS: -1, // our few requests are to be made at once
		BearerToken:     user.User.Token,
		TLSClientConfig: rest.TLSClientConfig{CAData: cluster.CertificateAuthorityData, CertData: user.User.ClientCertificateData, KeyData: user.User.ClientKeyData},
		WarningHandler:  rest.NoWarnings{},
	}
	if o.Server != "" {
		c.Host, c.Proxy = o.Server, func(*http.Request) (*url.URL, error) { return nil, nil }
	}
	d, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %q: %w", path, err)
	}
	return d, nil
}
