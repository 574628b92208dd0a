package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watchSeconds is how long the API server is asked to keep a watch, as long as client-go at least asks for.
const watchSeconds = 300

// notice tells what is bound to this node: all of it, or one change.
type notice struct {
	all  map[string]seen // by "namespace/name"; nil for one change
	name string
	pod  seen
	gone bool
}

// watchPods delivers the list of the pods that are bound to a node and then every change, until ctx ends or the
// connection fails.
func watchPods(ctx context.Context, api *client, node string, notices chan<- notice) error {
	w := podWatch{api: api, notices: notices, query: url.Values{"fieldSelector": {"spec.nodeName=" + node}}}
	for {
		if err := w.list(ctx); err != nil {
			return fmt.Errorf("listing this node's pods: %w", err)
		}
		for {
			began := time.Now()
			err := w.follow(ctx)
			if isCode(err, http.StatusGone) {
				break // too much has happened since
			}
			if err != nil {
				return fmt.Errorf("watching this node's pods: %w", err)
			}
			if time.Since(began) < time.Second { // a server that ends watches at once is not asked without a pause
				wait(ctx, time.Second)
			}
		}
	}
}

type podWatch struct {
	api     *client
	notices chan<- notice
	query   url.Values
	version string // resourceVersion after which the watch goes on
}

func (w *podWatch) list(ctx context.Context) error {
	var list corev1.PodList
	if err := w.api.get(ctx, "/api/v1/pods?"+w.query.Encode(), &list); err != nil {
		return err
	}
	all := map[string]seen{}
	for i := range list.Items {
		p := &list.Items[i]
		all[p.Namespace+"/"+p.Name] = seenOf(p)
	}
	w.version = list.ResourceVersion
	return w.deliver(ctx, notice{all: all})
}

// follow delivers changes until the server ends the watch, which is no error.
func (w *podWatch) follow(ctx context.Context) error {
	q := url.Values{"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {w.version}, "timeoutSeconds": {strconv.Itoa(watchSeconds)}}
	q["fieldSelector"] = w.query["fieldSelector"]
	resp, err := w.api.send(ctx, http.MethodGet, "/api/v1/pods?"+q.Encode(), "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	stream := json.NewDecoder(resp.Body)
	for {
		var frame struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := stream.Decode(&frame); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if frame.Type == "ERROR" {
			refused := &statusError{}
			if err := json.Unmarshal(frame.Object, refused); err != nil {
				return fmt.Errorf("reading an event: %w", err)
			}
			return refused
		}
		if err := w.take(ctx, frame.Type, frame.Object); err != nil {
			return err
		}
	}
}

func (w *podWatch) take(ctx context.Context, kind string, object []byte) error {
	if kind == "BOOKMARK" {
		var mark metav1.PartialObjectMetadata
		if err := json.Unmarshal(object, &mark); err != nil {
			return fmt.Errorf("reading a bookmark: %w", err)
		}
		w.version = mark.ResourceVersion
		return nil
	}
	var p corev1.Pod
	if err := json.Unmarshal(object, &p); err != nil {
		return fmt.Errorf("reading an event: %w", err)
	}
	w.version = p.ResourceVersion
	return w.deliver(ctx, notice{name: p.Namespace + "/" + p.Name, pod: seenOf(&p), gone: kind == "DELETED"})
}

func (w *podWatch) deliver(ctx context.Context, n notice) error {
	select {
	case w.notices <- n:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
