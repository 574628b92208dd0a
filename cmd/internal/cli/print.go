package cli

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/slipway-k8s/slipway/phases/config"
)

// printChanges prints the result of an init in the wanted format. The text form was printed as it happened.
func printChanges(std Streams, s *session, format string, c *config.Cluster) error {
	switch format {
	case "json":
		return printJSON(std.Out, changesOf(s.ui.changes))
	case "yaml":
		return printManifests(std, s, c)
	}
	return nil
}

// printManifests prints the KubeletConfiguration and the static pods that this run rendered, as they are, or would be, on
// disk: one YAML stream. Phases that were left out have no document.
func printManifests(std Streams, s *session, c *config.Cluster) error {
	var out bytes.Buffer
	paths := []string{c.Paths.KubeletConfig}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		paths = append(paths, filepath.Join(c.Paths.Manifests, name+".yaml"))
	}
	for _, path := range paths {
		if !slices.Contains(s.ui.written, path) {
			continue
		}
		f, err := s.env.Files.ReadFile(path)
		if err != nil {
			return fmt.Errorf("printing the manifests: %w", err)
		}
		fmt.Fprintf(&out, "---\n# %s\n%s", path, f.Data)
	}
	_, err := std.Out.Write(out.Bytes())
	return err
}
