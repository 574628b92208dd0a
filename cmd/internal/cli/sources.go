package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/supervisor"
)

// sourceFlags say where manifests come from, under the names of the kubelet's flags.
type sourceFlags struct {
	path    string
	url     string
	headers []string // "Name: value"
}

func (f *sourceFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.path, "pod-manifest-path", "", "`PATH` of a directory of manifests, or of one, instead of the file's staticPodPath")
	flags.StringVar(&f.url, "manifest-url", "", "`URL` of a Pod or PodList, instead of the file's staticPodURL")
	flags.StringArrayVar(&f.headers, "manifest-url-header", nil, "`HEADER` for the URL, as Name: value, instead of the file's staticPodURLHeader; may be given several times")
}

func (f *sourceFlags) given() bool { return f.path != "" || f.url != "" }

// superviseConfig is the KubeletConfiguration of the file with the flags in it. With a flag that names manifests the
// default file need not exist.
func superviseConfig(f *superviseFlags, paths config.Paths) (*kubeletv1beta1.KubeletConfiguration, error) {
	named := f.config != ""
	if !named {
		f.config = paths.KubeletConfig
	}
	c := &kubeletv1beta1.KubeletConfiguration{}
	if named || !f.sources.given() || exists(f.config) {
		var err error
		if c, err = readKubeletConfig(f.config); err != nil {
			return nil, err
		}
	}
	return c, f.sources.apply(c)
}

// apply puts the flags in the place of the file's fields.
func (f *sourceFlags) apply(c *kubeletv1beta1.KubeletConfiguration) error {
	if f.path != "" {
		path, err := filepath.Abs(f.path)
		if err != nil {
			return fmt.Errorf("--pod-manifest-path %s: %w", f.path, err)
		}
		c.StaticPodPath = path
	}
	if f.url != "" {
		c.StaticPodURL = f.url
	}
	if len(f.headers) == 0 {
		return nil
	}
	c.StaticPodURLHeader = map[string][]string{}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return errors.New("--manifest-url-header: not of the form Name: value") // the text may be a secret
		}
		name = http.CanonicalHeaderKey(name)
		c.StaticPodURLHeader[name] = append(c.StaticPodURLHeader[name], strings.TrimSpace(value))
	}
	return nil
}

// manifestSources are the directory and the URL that the configuration names, or both.
func manifestSources(c *kubeletv1beta1.KubeletConfiguration, node string) ([]supervisor.Source, error) {
	var sources []supervisor.Source
	if c.StaticPodPath != "" {
		sources = append(sources, manifest.Directory{Path: filepath.Clean(c.StaticPodPath), NodeName: node, Every: c.FileCheckFrequency.Duration})
	}
	if c.StaticPodURL != "" {
		u, err := url.Parse(c.StaticPodURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("staticPodURL %q: not an http or https URL", c.StaticPodURL)
		}
		sources = append(sources, manifest.HTTP{URL: c.StaticPodURL, Header: http.Header(c.StaticPodURLHeader), NodeName: node, Every: c.HTTPCheckFrequency.Duration})
	}
	if len(sources) == 0 {
		return nil, errors.New("neither staticPodPath nor staticPodURL is set, nor --pod-manifest-path nor --manifest-url: there is nothing to supervise")
	}
	return sources, nil
}

// shownConfig is the configuration as the local API shows it: without the values of the headers, among which
// credentials may be, as a kubelet's /configz.
func shownConfig(c *kubeletv1beta1.KubeletConfiguration) ([]byte, error) {
	shown := *c
	if len(c.StaticPodURLHeader) > 0 {
		shown.StaticPodURLHeader = map[string][]string{}
		for name := range c.StaticPodURLHeader {
			shown.StaticPodURLHeader[name] = []string{"<masked>"}
		}
	}
	return json.Marshal(&shown)
}
