package renewal_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// TestRetract: of what others are told to trust the dropped authority goes, and what somebody has added stays.
func TestRetract(t *testing.T) {
	c := cluster()
	for ca, key := range map[string]string{"ca": "client-ca-file", "front-proxy-ca": "requestheader-client-ca-file", "etcd-ca": ""} {
		t.Run(ca, func(t *testing.T) {
			files := made(t, c, birth)
			r := renewal.NewRotation(ca, files, c.Paths)
			former := certificatesIn(t, files, r.OwnPath())[0]
			other := certificatesIn(t, files, "/etc/kubernetes/pki/apiserver.crt")[0] // any
			for _, s := range steps()[:2] {
				if err := s.do(r); err != nil {
					t.Fatal(err)
				}
			}
			next := certificatesIn(t, files, r.OwnPath())[0]
			s := kubeapitest.New(t)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errors.New("gave up after 10s"))
			defer cancel()
			retract := func() {
				t.Helper()
				if err := r.Retract(ctx, s.API(t, false), func(kubeapi.Report) {}); err != nil {
					t.Fatal(err)
				}
			}
			retract() // before the API server has told anybody
			all := string(pki.EncodeCertificates(former, other, next))
			o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap",
				"metadata": map[string]any{"namespace": "kube-system", "name": "extension-apiserver-authentication"},
				"data":     map[string]any{"client-ca-file": all, "requestheader-client-ca-file": all}}}
			if err := s.API(t, false).Create(ctx, o, func(kubeapi.Report) {}); err != nil {
				t.Fatal(err)
			}
			told := func() map[string]string {
				data, _, _ := unstructured.NestedStringMap(s.Object("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").Object, "data")
				return data
			}
			retract()
			if data := told(); data["client-ca-file"] != all || data["requestheader-client-ca-file"] != all {
				t.Error("an authority that is trusted was taken out")
			}
			if err := r.Settle(later); err != nil {
				t.Fatal(err)
			}
			retract()
			for name, text := range told() {
				want := all
				if name == key {
					want = string(pki.EncodeCertificates(other, next))
				}
				if text != want {
					t.Errorf("%s is\n%s", name, text)
				}
			}
		})
	}
}
