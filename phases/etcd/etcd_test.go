package etcd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/templates"
)

func TestProbeFollowsTheFirstMetricsURL(t *testing.T) {
	for _, tc := range []struct {
		name, advertise, urls string
		want                  templates.Probe
		err                   string
	}{
		{name: "IPv4", advertise: "192.0.2.10", want: templates.Probe{Host: "127.0.0.1", Port: 2381, Scheme: corev1.URISchemeHTTP}},
		{name: "IPv6", advertise: "2001:db8::10", want: templates.Probe{Host: "::1", Port: 2381, Scheme: corev1.URISchemeHTTP}},
		{name: "moved", advertise: "192.0.2.10", urls: "https://[::1]:9981,http://127.0.0.1:2381", want: templates.Probe{Host: "::1", Port: 9981, Scheme: corev1.URISchemeHTTPS}},
		{name: "host only", advertise: "192.0.2.10", urls: "http://192.0.2.10", want: templates.Probe{Host: "192.0.2.10", Port: 2381, Scheme: corev1.URISchemeHTTP}},
		{name: "port only", advertise: "192.0.2.10", urls: "http://:9981", want: templates.Probe{Host: "127.0.0.1", Port: 9981, Scheme: corev1.URISchemeHTTP}},
		{name: "no port", advertise: "192.0.2.10", urls: "http://127.0.0.1:99999", err: `extraArgs "listen-metrics-urls": "99999" is not a port from 1 to 65535`},
		{name: "no URL", advertise: "192.0.2.10", urls: "http://[::1", err: `extraArgs "listen-metrics-urls": `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var args templates.Args
			if tc.urls != "" {
				args = templates.Args{{Name: "listen-metrics-urls", Value: tc.urls}}
			}
			got, err := probe(netip.MustParseAddr(tc.advertise), args)
			if tc.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
					t.Fatalf("got %v, want %q", err, tc.err)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

func TestExternalEtcdIsANoteAndNoFile(t *testing.T) {
	var events []phases.Event
	env := &phases.Env{
		Config: &config.Cluster{Etcd: config.Etcd{External: &config.ExternalEtcd{}}},
		Files:  artifact.NewOverlay(artifact.Disk{Root: t.TempDir()}),
		Report: func(e phases.Event) { events = append(events, e) },
	}
	if err := runLocal(t.Context(), env); err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 || events[0].Kind != phases.Note || events[0].Text != "etcd is external: no manifest is written for it" {
		t.Errorf("events: %+v", events)
	}
	if files, err := Manifests(env.Config); err != nil || len(files) != 0 {
		t.Errorf("manifests: %v, %v", files, err)
	}
}
