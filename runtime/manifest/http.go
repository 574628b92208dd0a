package manifest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// HTTP is a source of manifests at a URL: one Pod or one PodList, as YAML or JSON.
type HTTP struct {
	URL      string
	Header   http.Header
	NodeName string
	Every    time.Duration // zero means the kubelet's httpCheckFrequency, 20 s
	// Client is for tests and proxies; nil means one with the kubelet's timeout of 10 s.
	Client *http.Client
}

// Run asks the URL at once and then every h.Every, and calls emit as Directory.Run does. An answer that cannot be had
// or understood keeps the last good pods; only a valid list without a pod removes it.
func (h HTTP) Run(ctx context.Context, emit func(Snapshot)) error {
	client := cmp.Or(h.Client, &http.Client{Timeout: 10 * time.Second})
	ticker := time.NewTicker(cmp.Or(h.Every, 20*time.Second))
	defer ticker.Stop()
	var st state
	for first := true; ; first = false {
		data, err := h.fetch(ctx, client)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l := listing{err: err}
		if err == nil {
			l = itemize(data, h.URL, h.NodeName)
		}
		next := assemble(st, l, h.URL, h.NodeName)
		if first || !next.snap.Equal(st.snap) {
			emit(next.snap)
		}
		st = next
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (h HTTP) fetch(ctx context.Context, client *http.Client) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %q: %w", h.URL, err)
	}
	for k, v := range h.Header {
		req.Header[k] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking %q: %w", h.URL, errors.Unwrap(err)) // url.Error repeats verb and URL
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("asking %q: it answered %s", h.URL, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %q: %w", h.URL, err)
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%s answered with more than %d bytes", h.URL, MaxSize)
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%s answered with nothing; to remove every pod, answer with a PodList without items", h.URL)
	}
	return data, nil
}

// itemize takes an answer apart. Each pod of a PodList keeps its identity by its name, so that one invalid item costs
// nobody else anything, nor its own last good version; one without a name costs nobody anything. An answer that is neither a PodList nor one valid Pod is an
// error as a whole: it is not known whom it meant.
func itemize(data []byte, url, nodeName string) listing {
	var pods struct {
		Kind  string             `json:"kind"`
		Items *[]json.RawMessage `json:"items"`
	}
	b, err := toJSON(data, yaml.YAMLToJSON)
	if err != nil || json.Unmarshal(b, &pods) != nil || pods.Kind != "PodList" || pods.Items == nil {
		pod, err := Parse(data, url, nodeName)
		if err != nil {
			return listing{err: err}
		}
		name := strings.TrimSuffix(pod.Pod.Name, podName("", nodeName))
		return listing{items: []item{{source: itemSource(url, pod.Pod.Namespace, name), data: data}}}
	}
	var l listing
	seen := map[string]bool{}
	for i, raw := range *pods.Items {
		it := item{source: fmt.Sprintf("%s#%d", url, i)}
		var pod map[string]any
		if err := json.Unmarshal(raw, &pod); err != nil || pod == nil {
			it.data = raw
			l.items, l.nameless = append(l.items, it), true
			continue
		}
		// Servers leave the type out of a list's items.
		for k, v := range map[string]string{"apiVersion": "v1", "kind": "Pod"} {
			if _, ok := pod[k]; !ok {
				pod[k] = v
			}
		}
		meta, _ := pod["metadata"].(map[string]any)
		name, _ := meta["name"].(string)
		ns, isText := meta["namespace"].(string)
		if key := itemSource(url, cmp.Or(ns, corev1.NamespaceDefault), name); name != "" && !seen[key] {
			it.source, seen[key] = key, true
		}
		l.nameless = l.nameless || name == "" || meta["namespace"] != nil && !isText
		it.data, it.err = json.Marshal(pod)
		l.items = append(l.items, it)
	}
	return l
}

func itemSource(url, namespace, name string) string { return url + "#" + namespace + "/" + name }
