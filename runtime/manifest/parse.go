package manifest

import (
	"bytes"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxSize is how large a manifest may be, in bytes: the kubelet's own limit.
const MaxSize = 10 << 20

// Parse turns one manifest, YAML or JSON, into a StaticPod with every default applied. source is a path or URL: it
// goes into messages, and a URL makes the pod an "http" one. What the file says wrong comes back as one
// *InvalidError that holds every problem with its line.
//
// It is strict where the kubelet is not: an unknown field, a duplicate key or a second document is an error.
func Parse(data []byte, source, nodeName string) (*StaticPod, error) {
	doc, err := oneDocument(data)
	if err != nil {
		return nil, &InvalidError{Source: source, Fields: []FieldError{*err}}
	}
	tree := locate(doc)
	if err := checkKind(doc, tree); err != nil {
		return nil, &InvalidError{Source: source, Fields: []FieldError{*err}}
	}
	pod := &corev1.Pod{}
	if errs := decodeStrict(doc, tree, pod); len(errs) > 0 {
		return nil, &InvalidError{Source: source, Fields: errs}
	}
	applyDefaults(pod)
	if errs := validate(pod, nodeName); len(errs) > 0 {
		return nil, &InvalidError{Source: source, Fields: tree.locateAll(errs)}
	}
	return newStaticPod(pod, source, nodeName), nil
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
