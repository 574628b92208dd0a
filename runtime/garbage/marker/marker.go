// Package marker is the file by which a pod's directory is known as slipway's.
//
// It is written with the directory and says which pod the directory was made for. What lies elsewhere for the same pod
// (its logs, links to them, its cgroups) is found through it once the pod itself is forgotten. A kubelet that takes over
// ignores it, and removes it with the directory.
package marker

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

const (
	// Name is the file's name in the pod's directory.
	Name = "slipway.json"
	// MaxSize bounds the file: names of Kubernetes have at most 253 bytes.
	MaxSize = 4 << 10
)

// Pod says for which pod a directory was made, and who made it.
type Pod struct {
	Instance  string `json:"instance,omitempty"` // of slipway
	Namespace string `json:"namespace"`
	Name      string `json:"name"` // with the node's name
	UID       string `json:"uid"`
}

// FullName is the pod's "namespace/name".
func (p Pod) FullName() string { return p.Namespace + "/" + p.Name }

// Encode returns the file's content.
func Encode(p Pod) []byte {
	data, err := json.Marshal(p)
	if err != nil {
		panic("marker: strings cannot be encoded: " + err.Error())
	}
	return append(data, '\n')
}

// Decode reads the file. Each name it returns is one element of a path.
func Decode(data []byte) (Pod, error) {
	var p Pod
	if len(data) > MaxSize {
		return Pod{}, fmt.Errorf("a marker of %d bytes: at most %d are allowed", len(data), MaxSize)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return Pod{}, fmt.Errorf("decoding a marker: %w", err)
	}
	for _, name := range []string{p.Namespace, p.Name, p.UID} {
		if !filepath.IsLocal(name) || filepath.Base(name) != name || name == "." || strings.ContainsAny(name, "_\x00") {
			return Pod{}, fmt.Errorf("a marker with the name %q: %w", name, errNoName)
		}
	}
	return p, nil
}

var errNoName = errors.New("not a name in Kubernetes")
