package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// VolumeFile is a file of one of the pod's volumes. Containers write there: whoever opens it must not follow a link out
// of the volume, nor wait for a pipe.
type VolumeFile struct {
	Volume string // the volume's directory on the host
	Path   string // below it
}

// EnvFiles are the files from which variables of the container take their values: Attempt.Files must hold those that
// exist.
func EnvFiles(p *manifest.StaticPod, c *corev1.Container, n Node) []VolumeFile {
	var out []VolumeFile
	for _, v := range c.Env {
		if v.Value == "" && v.ValueFrom != nil && v.ValueFrom.FileKeyRef != nil {
			out = append(out, envFile(p, v.ValueFrom.FileKeyRef, n))
		}
	}
	return out
}

func envFile(p *manifest.StaticPod, ref *corev1.FileKeySelector, n Node) VolumeFile {
	return VolumeFile{Volume: volumeDir(p, "empty-dir", ref.VolumeName, n), Path: ref.Path}
}

// fileValue is a variable's value; false when the variable is not to be set. A kubelet does not start a container whose
// optional file is missing, and takes an empty value for a missing key; both are what the manifest allows here.
func fileValue(p *manifest.StaticPod, ref *corev1.FileKeySelector, a Attempt, n Node) (value string, set bool, err error) {
	optional := is(ref.Optional)
	data, ok := a.Files[envFile(p, ref, n)]
	if !ok {
		if optional {
			return "", false, nil
		}
		return "", false, fmt.Errorf("volume %s has no file %s", ref.VolumeName, ref.Path)
	}
	value, ok, err = lookUp(data, ref.Key)
	switch {
	case err != nil:
		return "", false, fmt.Errorf("file %s of volume %s: %w", ref.Path, ref.VolumeName, err)
	case !ok && !optional:
		return "", false, fmt.Errorf("file %s of volume %s has no key %s", ref.Path, ref.VolumeName, ref.Key)
	}
	return value, ok, nil
}

// lookUp finds a key in lines of the form KEY='value', as a shell reads them: a value may span lines, '#' begins a
// comment, and KEY= 'value' sets the key to nothing. The first one counts. Errors never show a value. Kubernetes v1.36.3
// pkg/kubelet/util/env/env_util.go.
func lookUp(data []byte, key string) (value string, found bool, err error) {
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimLeft(strings.TrimSuffix(lines[i], "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		number := i + 1
		bad := func(why string) (string, bool, error) { return "", false, fmt.Errorf("line %d: %s", number, why) }
		name, rest, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return bad("expected KEY='value'")
		case name == "" || strings.TrimRight(name, " \t") != name:
			return bad("expected a name directly before '='")
		case rest == "" || rest[0] == ' ' || rest[0] == '\t':
			if name == key {
				return "", true, nil
			}
			continue
		case rest[0] != '\'':
			return bad("expected the value in single quotes")
		}
		text := rest[1:]
		for !strings.Contains(text, "'") {
			if i++; i == len(lines) {
				return bad("the single quote is not closed")
			}
			text += "\n" + strings.TrimSuffix(lines[i], "\r")
		}
		text, after, _ := strings.Cut(text, "'")
		if after = strings.TrimLeft(after, " \t"); after != "" && after[0] != '#' {
			return bad("something follows the closing quote")
		}
		if name == key {
			return text, true, nil
		}
	}
	return "", false, nil
}
