package config

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// PatchFile is one file of the patches directory.
type PatchFile struct {
	Name string // as it is to be named in messages; its last element says what is patched, and how
	Data []byte
}

// readPatches returns the patches in the order of their files' names, and of the documents in a file. Files that are
// neither YAML nor JSON, and empty ones, earn a warning, as in kubeadm.
func readPatches(r *report, files []PatchFile) []Patch {
	files = slices.SortedFunc(slices.Values(files), func(a, b PatchFile) int { return cmp.Compare(a.Name, b.Name) })
	var patches []Patch
	for _, f := range files {
		base := path.Base(f.Name)
		if ext := path.Ext(base); ext != ".yaml" && ext != ".json" {
			r.warnings = append(r.warnings, &Problem{Source: f.Name, Reason: "ignored: a patch is a .yaml or .json file"})
			continue
		}
		target, kind, err := patchName(base)
		if err != nil {
			r.problems = append(r.problems, &Problem{Source: f.Name, Reason: err.Error()})
			continue
		}
		documents, err := patchDocuments(f.Data, kind)
		if err != nil {
			r.problems = append(r.problems, &Problem{Source: f.Name, Reason: err.Error()})
			continue
		}
		if len(documents) == 0 {
			r.warnings = append(r.warnings, &Problem{Source: f.Name, Reason: "ignored: it is empty"})
		}
		for _, data := range documents {
			patches = append(patches, Patch{Target: target, Type: kind, File: f.Name, Data: data})
		}
	}
	return patches
}

// patchName takes a file name apart: target[suffix][+type].extension.
func patchName(base string) (target, kind string, err error) {
	targets := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubeletconfiguration", "corednsdeployment"}
	kinds := []string{"strategic", "merge", "json"}
	name := strings.TrimSuffix(base, path.Ext(base))
	name, kind, typed := strings.Cut(name, "+")
	if !typed {
		kind = "strategic"
	}
	if !slices.Contains(kinds, kind) {
		return "", "", fmt.Errorf("patch type %q behind the +: wanted %s%s", kind, alternatives(kinds), didYouMean(kind, kinds))
	}
	for _, t := range targets {
		if strings.HasPrefix(name, t) {
			return t, kind, nil
		}
	}
	return "", "", fmt.Errorf("the name begins with no target of a patch: wanted %s%s", alternatives(targets), didYouMean(name, targets))
}

// patchDocuments splits a patch file and turns each document into JSON.
func patchDocuments(data []byte, kind string) ([][]byte, error) {
	var out [][]byte
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading patch: %w", err)
		}
		converted, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("not valid YAML: %w", err)
		}
		switch first := converted[0]; {
		case bytes.Equal(converted, []byte("null")):
		case kind == "json" && first != '[':
			return nil, errors.New("a json patch is a list of operations: [{op, path, value}]")
		case kind != "json" && first != '{':
			return nil, fmt.Errorf("a %s patch is a mapping of the fields to change", kind)
		default:
			out = append(out, converted)
		}
	}
}
