package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	kubeproxyv1alpha1 "k8s.io/kube-proxy/config/v1alpha1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

const (
	kubeadmVersion   = "kubeadm.k8s.io/v1beta4"
	kubeletVersion   = "kubelet.config.k8s.io/v1beta1"
	kubeProxyVersion = "kubeproxy.config.k8s.io/v1alpha1"
)

// documents are what a file holds, decoded but neither defaulted nor validated. The zero value is an empty file.
type documents struct {
	init        initConfiguration
	cluster     clusterConfiguration
	kubelet     kubeletv1beta1.KubeletConfiguration
	kubeletJSON []byte // nil without a KubeletConfiguration
	kubeProxy   kubeproxyv1alpha1.KubeProxyConfiguration
	// kubeProxyJSON is nil without a KubeProxyConfiguration.
	kubeProxyJSON []byte
	uploadCerts   bool // --upload-certs: kubeadm has no field for it

	configures bool    // there is a document for init, or one that is meant to be
	others     []other // those of other commands, not decoded
}

// other is a document of kubeadm that init has no use for.
type other struct {
	kind string
	root *yaml.Node
}

// readDocuments decodes the documents of a file. It reports whether the file was read to its end: behind a syntax error
// nothing is known, so that validating what came before would only mislead.
func readDocuments(r *report, data []byte) (documents, bool) {
	roots, serr := parseYAML(data)
	if serr != nil {
		r.problems = append(r.problems, &Problem{Source: r.file, Line: serr.line, Reason: serr.reason})
	}
	return decodeDocuments(r, roots), serr == nil
}

// decodeDocuments decodes the documents that init reads.
func decodeDocuments(r *report, roots []*yaml.Node) documents {
	var docs documents
	seen := map[string]int{}
	for _, root := range roots {
		gv, kind, ok := header(r, root)
		if !ok {
			docs.configures = true // what it is meant to be is unknown; one problem is enough
			continue
		}
		if first := seen[kind]; first > 0 {
			r.fileProblem(root.Line, "a second %s; the first begins on line %d: join them into one document", kind, first)
			continue
		}
		seen[kind] = root.Line
		docs.configures = docs.add(r, root, gv, kind) || docs.configures
	}
	return docs
}

// header returns the apiVersion and the kind of a document, if it has both.
func header(r *report, root *yaml.Node) (gv, kind string, ok bool) {
	if root.Kind != yaml.MappingNode {
		r.fileProblem(root.Line, "wanted a document with apiVersion and kind, found %s", describe(root))
		return "", "", false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case "apiVersion":
			gv = root.Content[i+1].Value
		case "kind":
			kind = root.Content[i+1].Value
		}
	}
	switch {
	case gv == "" && kind == "":
		r.fileProblem(root.Line, "the document has no apiVersion and no kind; a kubeadm file has %q and a kind such as ClusterConfiguration", kubeadmVersion)
	case gv == "":
		r.fileProblem(root.Line, "the %s has no apiVersion", kind)
	case kind == "":
		r.fileProblem(root.Line, "the document of %s has no kind", gv)
	}
	return gv, kind, gv != "" && kind != ""
}

// add decodes one document. It reports whether the document configures something, or was meant to.
func (docs *documents) add(r *report, root *yaml.Node, gv, kind string) bool {
	d := &decoder{report: r}
	switch gv + " " + kind {
	case kubeadmVersion + " InitConfiguration":
		d.elsewhere = uniqueFields("ClusterConfiguration", reflect.TypeFor[clusterConfiguration](), reflect.TypeFor[initConfiguration]())
		d.decode(root, "", &docs.init)
	case kubeadmVersion + " ClusterConfiguration":
		d.elsewhere = uniqueFields("InitConfiguration", reflect.TypeFor[initConfiguration](), reflect.TypeFor[clusterConfiguration]())
		d.decode(root, "", &docs.cluster)
	case kubeadmVersion + " JoinConfiguration", kubeadmVersion + " ResetConfiguration", kubeadmVersion + " UpgradeConfiguration":
		docs.others = append(docs.others, other{kind, root})
		return false
	case kubeletVersion + " KubeletConfiguration":
		d.decode(root, kind, &docs.kubelet)
		docs.kubeletJSON = d.json(root, kind)
	case kubeProxyVersion + " KubeProxyConfiguration":
		r.lines[kind] = root.Line
		d.decode(root, kind, &docs.kubeProxy)
		docs.kubeProxyJSON = d.json(root, kind)
	default:
		r.fileProblem(root.Line, "%s", unknownDocument(r.file, gv, kind))
	}
	return true
}

// json returns a document as it is, for those that are handed on.
func (d *decoder) json(root *yaml.Node, kind string) []byte {
	data, err := nodeJSON(root)
	if err != nil {
		d.fileProblem(root.Line, "%s: %s", kind, err)
	}
	return data
}

// unknownDocument says why a document is not read, and what would be.
func unknownDocument(file, gv, kind string) string {
	kinds := map[string][]string{
		kubeadmVersion:   {"InitConfiguration", "ClusterConfiguration", "JoinConfiguration", "ResetConfiguration", "UpgradeConfiguration"},
		kubeletVersion:   {"KubeletConfiguration"},
		kubeProxyVersion: {"KubeProxyConfiguration"},
	}
	if known, ok := kinds[gv]; ok {
		hint := didYouMean(kind, known)
		if hint == "" {
			hint = "; it has " + strings.Join(known, ", ")
		}
		return fmt.Sprintf("kind %q is not one of %s%s", kind, gv, hint)
	}
	group, _, _ := strings.Cut(gv, "/")
	for known := range kinds {
		if !strings.HasPrefix(known, group+"/") {
			continue
		}
		reason := fmt.Sprintf("apiVersion %q is not read; use %q", gv, known)
		if gv == oldKubeadmVersion {
			reason += fmt.Sprintf(", to which `slipway config migrate --old-config %s --new-config NEW` converts the file", file)
		} else if old := olderKubeadms[gv]; old != "" {
			reason += fmt.Sprintf("; `kubeadm config migrate` of Kubernetes %s converts the file to a newer one", old)
		}
		return reason
	}
	versions := []string{kubeadmVersion, kubeletVersion, kubeProxyVersion}
	hint := didYouMean(gv, versions)
	if hint == "" {
		hint = "; slipway reads " + strings.Join(versions, ", ")
	}
	return fmt.Sprintf("apiVersion %q is not known%s", gv, hint)
}

// fileProblem records a problem of a document as a whole.
func (r *report) fileProblem(line int, format string, args ...any) {
	r.problems = append(r.problems, &Problem{Source: r.file, Line: line, Reason: fmt.Sprintf(format, args...)})
}

// uniqueFields returns the places of all fields of two kinds whose names occur once, as "networking.podSubnet", or with
// " of OTHER" behind it for those of the other kind.
func uniqueFields(otherKind string, other, own reflect.Type) map[string]string {
	places := map[string]string{}
	count := map[string]int{}
	note := func(suffix string) func(path string) {
		return func(path string) {
			name := path[strings.LastIndex(path, ".")+1:]
			count[name]++
			places[name] = path + suffix
		}
	}
	walkFields(own, "", note(""))
	walkFields(other, "", note(" of "+otherKind))
	for name, n := range count {
		if n > 1 {
			delete(places, name)
		}
	}
	return places
}

// walkFields calls visit with the path of every field of a document type; those of list elements have "[]" in it.
// Types of other packages are leaves.
func walkFields(t reflect.Type, prefix string, visit func(path string)) {
	for name, f := range fieldsOf(t) {
		path := join(prefix, name)
		ft := f.Type
		if ft.Kind() == reflect.Slice {
			ft, path = ft.Elem(), path+"[]"
		}
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct && ft.PkgPath() == t.PkgPath() {
			visit(strings.TrimSuffix(path, "[]"))
			walkFields(ft, path, visit)
			continue
		}
		visit(strings.TrimSuffix(path, "[]"))
	}
}
