package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxSize is how large a manifest may be, in bytes: the kubelet's own limit.
const MaxSize = 10 << 20

// Parse turns one manifest, YAML or JSON, into a StaticPod with every default applied. source is a path or URL: it
// goes into messages, and a URL makes the pod an "http" one. What the file says wrong comes back as one
// *InvalidError that holds every problem with its line and column.
//
// It is strict where the kubelet is not: an unknown field, a duplicate key or a second document is an error.
func Parse(data []byte, source, nodeName string) (*StaticPod, error) {
	pod, fields := Check(data, source, nodeName)
	if len(fields) > 0 {
		return nil, &InvalidError{Source: source, Fields: fields}
	}
	return pod, nil
}

// Check is Parse for those who show each finding by itself. The pod is nil when there is a finding.
func Check(data []byte, source, nodeName string) (*StaticPod, []FieldError) {
	doc, err := oneDocument(data)
	if err != nil {
		return nil, placed(data, *err)
	}
	tree := locate(doc)
	if err := checkKind(doc, tree); err != nil {
		return nil, placed(data, *err)
	}
	pod := &corev1.Pod{}
	found, decoded := decodeStrict(doc, tree, pod)
	if decoded {
		applyDefaults(pod)
		found = append(found, tree.locateAll(validate(pod, nodeName))...)
	}
	if len(found) > 0 {
		return nil, placed(data, found...)
	}
	return newStaticPod(pod, source, nodeName), nil
}

// Locate returns the line and column, both from 1, at which a field of a manifest stands: spec.containers[0].image or
// metadata.labels[a.b/c]. For a field that is not there it is the place of the nearest one above it.
func Locate(data []byte, field string) (line, column int) {
	doc, err := oneDocument(data)
	if err != nil {
		return 1, 1
	}
	at := placed(data, *locate(doc).at(field, ""))[0]
	return at.Line, at.Column
}

// placed gives each finding a line and a column: the first of the document, and the first of the line's text, where the
// decoder told none. They are in the order of their places.
func placed(data []byte, found ...FieldError) []FieldError {
	lines := bytes.Split(data, []byte("\n"))
	for i := range found {
		f := &found[i]
		f.Line = min(max(f.Line, 1), len(lines))
		if f.Column == 0 {
			text := lines[f.Line-1]
			f.Column = 1 + len(text) - len(bytes.TrimLeft(text, " \t"))
		}
	}
	slices.SortStableFunc(found, func(a, b FieldError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Field, b.Field), strings.Compare(a.Detail, b.Detail))
	})
	return slices.Compact(found)
}

// newStaticPod gives a defaulted and valid pod what the kubelet gives every static pod, in the kubelet's order.
func newStaticPod(pod *corev1.Pod, source, nodeName string) *StaticPod {
	hash := specHash(pod, nodeName)
	if pod.UID == "" {
		pod.UID = types.UID(hash)
	}
	pod.Name = podName(pod.Name, nodeName)
	if pod.Namespace == "" {
		pod.Namespace = corev1.NamespaceDefault
	}
	pod.Spec.NodeName = nodeName

	kind := "file"
	if isURL(source) {
		kind = "http"
	}
	annotations := map[string]string{AnnotationConfigHash: string(pod.UID), AnnotationConfigSource: kind}
	for k, v := range pod.Annotations {
		if _, ours := annotations[k]; !ours {
			annotations[k] = v
		}
	}
	pod.Annotations = annotations
	if kind == "file" {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
			Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
		})
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	return &StaticPod{Pod: pod, UID: string(pod.UID), SpecHash: hash, Source: source}
}

// podName is the name that a static pod has on its node.
func podName(name, nodeName string) string { return name + "-" + strings.ToLower(nodeName) }

func isURL(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

// document is one YAML document and the line of the file before its first.
type document struct {
	data   []byte
	before int
}

// oneDocument returns the only document of a file. Empty documents, such as the one before a leading "---", do not
// count.
func oneDocument(data []byte) (document, *FieldError) {
	if len(data) > MaxSize {
		return document{}, &FieldError{Detail: fmt.Sprintf("is %d bytes; a manifest may have at most %d", len(data), MaxSize)}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []document
	for _, d := range split(data) {
		if !d.empty() {
			docs = append(docs, d)
		}
	}
	switch len(docs) {
	case 0:
		return document{}, &FieldError{Detail: "is empty; expected one Pod (apiVersion: v1, kind: Pod)"}
	case 1:
		return docs[0], nil
	}
	return document{}, &FieldError{Line: docs[1].before + 1,
		Detail: fmt.Sprintf("a second document begins here (%d in all); expected one Pod: give each its own file", len(docs))}
}

// split cuts a YAML stream at its "---" lines. A marker stays with the document that it opens, so that line numbers
// need only the offset.
func split(data []byte) []document {
	var docs []document
	start, startLine, line := 0, 0, 0
	for i := 0; i < len(data); line++ {
		end := len(data)
		if n := bytes.IndexByte(data[i:], '\n'); n >= 0 {
			end = i + n + 1
		}
		if text := data[i:end]; i > start && isMarker(text) {
			docs = append(docs, document{data: data[start:i], before: startLine})
			start, startLine = i, line
		}
		i = end
	}
	return append(docs, document{data: data[start:], before: startLine})
}

func isMarker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n"))
}

// empty says that the document holds nothing but markers, directives and comments.
func (d document) empty() bool {
	for line := range bytes.Lines(d.data) {
		text := bytes.TrimSpace(line)
		if isMarker(line) {
			text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("---")))
		}
		if len(text) > 0 && text[0] != '#' && text[0] != '%' && string(text) != "..." {
			return false
		}
	}
	return true
}
