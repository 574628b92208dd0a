package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// oldKubeadmVersion is what kubeadm wrote until Kubernetes 1.30, and Migrate reads.
const oldKubeadmVersion = "kubeadm.k8s.io/v1beta3"

// olderKubeadms are the releases whose kubeadm still converts older files: kubeadm v1.36.3 util/config/common.go.
var olderKubeadms = map[string]string{
	"kubeadm.k8s.io/v1alpha1": "1.11", "kubeadm.k8s.io/v1alpha2": "1.12", "kubeadm.k8s.io/v1alpha3": "1.14",
	"kubeadm.k8s.io/v1beta1": "1.15", "kubeadm.k8s.io/v1beta2": "1.22",
}

// Migrate returns a file with its v1beta3 documents in the form of v1beta4: fields that have moved or changed their form
// are rewritten, all else stays as it is, comments too. Nothing is filled in, so that what the file leaves out still has
// the default of who reads it. The warnings say what slipway would not act on; the error joins every Problem found.
func Migrate(file string, data []byte) (out []byte, warnings []string, err error) {
	r := newReport(file)
	roots, serr := parseYAML(data)
	if serr != nil {
		r.fileProblem(serr.line, "%s", serr.reason)
		return nil, nil, r.err()
	}
	m := migration{report: r, byKind: map[string]*yaml.Node{}}
	for _, root := range roots {
		m.document(root)
	}
	if len(roots) > 0 && !m.found {
		r.warnings = append(r.warnings, &Problem{Source: file, Reason: "has no document of " + oldKubeadmVersion + "; nothing was converted"})
	}
	roots = m.placeTimeout(roots)

	// What comes out must be what slipway reads: the nodes still have the lines of the old file.
	docs := decodeDocuments(r, roots)
	if !docs.configures && len(docs.others) == 0 {
		r.fileProblem(0, "holds no document of kubeadm")
	}
	if docs.configures {
		for _, f := range inertFields(docs) {
			if f.refused {
				r.warnf(f.field, "slipway init refuses it: %s", f.reason)
			}
		}
		Options{File: file, Facts: anyHost()}.build(r, docs)
	}
	checkOthers(r, docs.others)
	if err := r.err(); err != nil {
		return nil, r.warningTexts(), err
	}
	if out, err = writeYAML(roots); err != nil {
		return nil, nil, fmt.Errorf("writing the converted %s: %w", file, err)
	}
	return out, r.warningTexts(), nil
}

// migration rewrites documents in place.
type migration struct {
	*report
	found        bool                  // there was a document of v1beta3
	byKind       map[string]*yaml.Node // the documents of kubeadm, of either version
	healthKey    *yaml.Node            // timeoutForControlPlane, taken out of the ClusterConfiguration
	healthWanted *yaml.Node
}

func (m *migration) document(root *yaml.Node) {
	quiet := newReport(m.file)
	gv, kind, ok := header(quiet, root)
	if !ok {
		return // decodeDocuments reports it
	}
	if gv == kubeadmVersion {
		m.byKind[kind] = root
	}
	if gv != oldKubeadmVersion {
		return
	}
	if !slices.Contains([]string{"InitConfiguration", "ClusterConfiguration", "JoinConfiguration"}, kind) {
		m.fileProblem(root.Line, "%s has no %s", oldKubeadmVersion, kind)
	}
	m.found, m.byKind[kind] = true, root
	set(root, "apiVersion", kubeadmVersion)
	for _, path := range newFields[kind] {
		if key, _ := take(root, path); key != nil {
			m.unreadable(key.Line, path, "is not a field of %s; set apiVersion to %s, or remove it", oldKubeadmVersion, kubeadmVersion)
		}
	}
	for _, path := range goneFields[kind] {
		if key, _ := take(root, path); key != nil {
			m.unreadable(key.Line, path, "went with %s; remove it", oldKubeadmVersion)
		}
	}
	for _, path := range mapFields[kind] {
		m.args(root, path)
	}
	switch kind {
	case "ClusterConfiguration":
		m.healthKey, m.healthWanted = take(root, "apiServer.timeoutForControlPlane")
	case "JoinConfiguration":
		if key, value := take(root, "discovery.timeout"); key != nil {
			put(root, "timeouts", "discovery", key, value)
		}
	}
}

// args turns a mapping of arguments into a list, by name, as kubeadm does.
func (m *migration) args(root *yaml.Node, path string) {
	n := find(root, path)
	if n == nil || n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		m.unreadable(n.Line, path, "wanted a mapping of names to values, as %s has it, found %s", oldKubeadmVersion, describe(n))
		*n = yaml.Node{Kind: yaml.SequenceNode, Line: n.Line}
		return
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: n.Style, Line: n.Line, HeadComment: n.HeadComment, FootComment: n.FootComment}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, ok := first[key.Value]; ok {
			m.unreadable(key.Line, join(path, key.Value), "set twice; the first is on line %d", line)
			continue
		}
		first[key.Value] = key.Line
		if value.ShortTag() == "!!null" {
			value = text("", value.Line)
		}
		item := &yaml.Node{Kind: yaml.MappingNode, Line: key.Line, HeadComment: key.HeadComment, FootComment: key.FootComment}
		key.HeadComment, key.FootComment = "", ""
		key.Tag = "!!str" // "v: 4" under a name such as "on" is still the name
		item.Content = []*yaml.Node{text("name", key.Line), key, text("value", value.Line), value}
		list.Content = append(list.Content, item)
	}
	slices.SortStableFunc(list.Content, func(a, b *yaml.Node) int { return cmp.Compare(a.Content[1].Value, b.Content[1].Value) })
	*n = *list
}

// placeTimeout puts timeoutForControlPlane where v1beta4 has it: with the node's own settings, in a document of its own
// where the file has none. kubeadm's default needs no place.
func (m *migration) placeTimeout(roots []*yaml.Node) []*yaml.Node {
	if m.healthKey == nil {
		return roots
	}
	if d, err := time.ParseDuration(m.healthWanted.Value); err == nil && (d == 0 || d == defaultHealthCheckTimeout) {
		return roots
	}
	const field = "controlPlaneComponentHealthCheck"
	if join := m.byKind["JoinConfiguration"]; join != nil {
		put(join, "timeouts", field, m.healthKey, m.healthWanted)
	}
	init := m.byKind["InitConfiguration"]
	if init == nil {
		line := m.healthKey.Line
		init = &yaml.Node{Kind: yaml.MappingNode, Line: line, Content: []*yaml.Node{
			text("apiVersion", line), text(kubeadmVersion, line), text("kind", line), text("InitConfiguration", line),
		}}
		roots = append(roots, init)
	}
	put(init, "timeouts", field, m.healthKey, m.healthWanted)
	return roots
}

// find returns the value at a path of mappings, or nil.
func find(n *yaml.Node, path string) *yaml.Node {
	name, rest, deeper := strings.Cut(path, ".")
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != name {
			continue
		}
		if deeper {
			return find(n.Content[i+1], rest)
		}
		return n.Content[i+1]
	}
	return nil
}

// take removes the field at a path and returns its key and value, nil where there is none.
func take(root *yaml.Node, path string) (key, value *yaml.Node) {
	parent, name := root, path
	if i := strings.LastIndex(path, "."); i >= 0 {
		parent, name = find(root, path[:i]), path[i+1:]
	}
	if parent == nil || parent.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(parent.Content); i += 2 {
		if parent.Content[i].Value == name {
			key, value = parent.Content[i], parent.Content[i+1]
			parent.Content = slices.Delete(parent.Content, i, i+2)
			return key, value
		}
	}
	return nil, nil
}

// set gives a field of a document another text.
func set(root *yaml.Node, name, value string) {
	if n := find(root, name); n != nil {
		n.Value, n.Tag = value, "!!str"
	}
}

// put adds a field to a mapping of a document, with the lines and the comments that it had elsewhere.
func put(root *yaml.Node, mapping, name string, key, value *yaml.Node) {
	into := find(root, mapping)
	if into == nil || into.Kind != yaml.MappingNode {
		take(root, mapping)
		into = &yaml.Node{Kind: yaml.MappingNode, Line: key.Line}
		root.Content = append(root.Content, text(mapping, key.Line), into)
	}
	if find(into, name) != nil {
		return // the file is explicit about it
	}
	moved, copied := *key, *value
	moved.Value = name
	into.Content = append(into.Content, &moved, &copied)
}

func text(value string, line int) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Line: line}
	if value == "" {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func writeYAML(roots []*yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	for _, root := range roots {
		root.Style &^= yaml.FlowStyle // a text that begins with a brace is JSON to kubeadm, and must be all JSON then
		if err := enc.Encode(root); err != nil {
			return nil, err
		}
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
