package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

func TestSourceFlagsTakeTheFilesPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	text := "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /from/file\n" +
		"staticPodURL: https://file.example.com/pods\nstaticPodURLHeader: {X-From: [file]}\nfileCheckFrequency: 3s\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fromFile := manifest.Directory{Path: "/from/file", NodeName: "n", Every: 3e9}
	atFile := manifest.HTTP{URL: "https://file.example.com/pods", Header: http.Header{"X-From": {"file"}}, NodeName: "n"}
	for name, c := range map[string]struct {
		flags sourceFlags
		want  []any
	}{
		"none": {sourceFlags{}, []any{fromFile, atFile}},
		"a path": {sourceFlags{path: "/from/flag"}, []any{
			manifest.Directory{Path: "/from/flag", NodeName: "n", Every: 3e9}, atFile}},
		"a URL with headers": {sourceFlags{url: "http://flag.example.com", headers: []string{"x-from: flag", "X-FROM:again", "Cookie: a: b"}}, []any{
			fromFile, manifest.HTTP{URL: "http://flag.example.com", Header: http.Header{"X-From": {"flag", "again"}, "Cookie": {"a: b"}}, NodeName: "n"}}},
	} {
		t.Run(name, func(t *testing.T) {
			kubelet, err := superviseConfig(&superviseFlags{config: file, sources: c.flags}, config.NewPaths(""))
			if err != nil {
				t.Fatal(err)
			}
			sources, err := manifestSources(kubelet, "n")
			if err != nil {
				t.Fatal(err)
			}
			var got []any
			for _, s := range sources {
				got = append(got, s)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(http.Client{})); diff != "" {
				t.Errorf("the sources (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSuperviseWithoutAFile(t *testing.T) {
	paths := config.NewPaths("")
	paths.KubeletConfig = filepath.Join(t.TempDir(), "config.yaml")
	if _, err := superviseConfig(&superviseFlags{}, paths); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("without a file and without a flag the error is %v", err)
	}
	kubelet, err := superviseConfig(&superviseFlags{sources: sourceFlags{path: "pods"}}, paths)
	if err != nil {
		t.Fatalf("without a file and with a path: %v", err)
	}
	if here, _ := filepath.Abs("pods"); kubelet.StaticPodPath != here {
		t.Errorf("the path is %q, want it absolute: %q", kubelet.StaticPodPath, here)
	}
	if _, err := superviseConfig(&superviseFlags{config: paths.KubeletConfig, sources: sourceFlags{path: "pods"}}, paths); err == nil {
		t.Error("a file that is named and missing is not noticed")
	}
}

func TestWrongSources(t *testing.T) {
	for name, c := range map[string]struct {
		kubelet kubeletv1beta1.KubeletConfiguration
		flags   sourceFlags
		want    string
	}{
		"nothing":  {want: "there is nothing to supervise"},
		"no URL":   {flags: sourceFlags{url: "pods.example.com"}, want: "not an http or https URL"},
		"file URL": {flags: sourceFlags{url: "file:///etc/passwd"}, want: "not an http or https URL"},
		"header":   {flags: sourceFlags{url: "http://a.example.com", headers: []string{"secret"}}, want: "not of the form Name: value"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.flags.apply(&c.kubelet)
			if err == nil {
				_, err = manifestSources(&c.kubelet, "n")
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want one with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error prints a header: %v", err)
			}
		})
	}
}

func TestConfigzHidesHeaders(t *testing.T) {
	kubelet := &kubeletv1beta1.KubeletConfiguration{StaticPodURLHeader: map[string][]string{"Authorization": {"Bearer hunter2"}}}
	shown, err := shownConfig(kubelet)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(shown), "hunter2") || !strings.Contains(string(shown), "Authorization") {
		t.Errorf("the configuration is shown as %s", shown)
	}
	if kubelet.StaticPodURLHeader["Authorization"][0] != "Bearer hunter2" {
		t.Error("the configuration in force has lost its header")
	}
}
