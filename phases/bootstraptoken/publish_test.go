package bootstraptoken_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
)

// publish publishes the authorities, and returns what was reported.
func publish(t *testing.T, s *kubeapitest.Server, authorities string, at time.Time) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errors.New("gave up after 10s"))
	defer cancel()
	var told []string
	err := bootstraptoken.Publish(ctx, s.API(t, false), []byte(authorities), at, func(r kubeapi.Report) { told = append(told, r.Text) })
	return strings.Join(told, "\n"), err
}

// token is one of a configuration.
func token(id string, usages ...string) config.BootstrapToken {
	return config.BootstrapToken{ID: id, Secret: "0123456789" + id, TTL: 24 * time.Hour, Usages: usages}
}

// TestPublish: cluster-info names the new authorities, with signatures of the tokens that are good then, and says
// otherwise what it said, and init finds nothing to change in it.
func TestPublish(t *testing.T) {
	s := kubeapitest.New(t) // nobody else signs
	short := token("cccccc", "signing")
	short.TTL = time.Hour
	tokens := []config.BootstrapToken{token("aaaaaa", "signing", "authentication"), token("bbbbbb", "authentication"), short}
	if _, _, err := run(t, s, start, tokens...); err != nil {
		t.Fatal(err)
	}
	const authorities = "next\nformer\n"
	later := start.Add(2 * time.Hour)
	told, err := publish(t, s, authorities, later)
	if want := "changed ConfigMap kube-public/cluster-info: the authorities that joining machines trust"; err != nil || told != want {
		t.Errorf("%q, %v, want %q", told, err, want)
	}
	info := s.Object(infoPath)
	data, _, _ := unstructured.NestedStringMap(info.Object, "data")
	if text := data["kubeconfig"]; !strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(authorities))) || !strings.Contains(text, "server: https://192.0.2.10:6443") {
		t.Errorf("it says\n%s", text)
	}
	if !bootstraptoken.Signed(info, tokens[0]) || len(data) != 2 {
		t.Errorf("its signatures are not that of the one token that signs and has not ended: %q", data)
	}

	s.Log()
	if told, err := publish(t, s, authorities, later); told != "" || err != nil {
		t.Errorf("again: %q, %v", told, err)
	}
	if log := s.Log(); slices.ContainsFunc(log, func(r string) bool { return !strings.HasPrefix(r, "GET ") }) {
		t.Errorf("again, it writes: %q", log)
	}
	if _, err := publish(t, s, "PEM", start); err != nil { // what the administrator's kubeconfig has
		t.Fatal(err)
	}
	if _, told, err := run(t, s, start, tokens...); told != "" || err != nil {
		t.Errorf("init, after it: %q, %v", told, err)
	}
}

// Somebody's own server, such as a load balancer's, is not slipway's to change.
func TestPublishKeepsWhatOthersHaveSet(t *testing.T) {
	s := kubeapitest.New(t)
	if _, _, err := run(t, s, start, token("aaaaaa", "signing")); err != nil {
		t.Fatal(err)
	}
	s.Update(t, infoPath, "somebody", func(o *unstructured.Unstructured) {
		text, _, _ := unstructured.NestedString(o.Object, "data", "kubeconfig")
		unstructured.SetNestedField(o.Object, strings.ReplaceAll(text, "192.0.2.10", "balancer.example"), "data", "kubeconfig")
	})
	if _, err := publish(t, s, "next", start); err != nil {
		t.Fatal(err)
	}
	info := s.Object(infoPath)
	if text, _, _ := unstructured.NestedString(info.Object, "data", "kubeconfig"); !strings.Contains(text, "server: https://balancer.example:6443") {
		t.Errorf("it says\n%s", text)
	}
	if !bootstraptoken.Signed(info, token("aaaaaa")) {
		t.Error("its signature does not hold")
	}
}

func TestPublishWithout(t *testing.T) {
	s := kubeapitest.New(t)
	if told, err := publish(t, s, "next", start); told != "" || err != nil || len(s.Paths()) > 0 {
		t.Errorf("without cluster-info: %q, %v, %q", told, err, s.Paths())
	}
	if _, _, err := run(t, s, start, token("aaaaaa", "signing")); err != nil {
		t.Fatal(err)
	}
	s.Update(t, infoPath, "somebody", func(o *unstructured.Unstructured) {
		unstructured.SetNestedField(o.Object, "kind: Confetti", "data", "kubeconfig")
	})
	if _, err := publish(t, s, "next", start); err == nil || !strings.Contains(err.Error(), `ConfigMap kube-public/cluster-info: its kubeconfig: it is not a kubeconfig: its kind is "Confetti"`) ||
		!strings.Contains(err.Error(), "slipway init phase bootstrap-token makes it anew") {
		t.Errorf("with a damaged one: %v", err)
	}
	s.Refuse = func(*http.Request) error { return apierrors.NewUnauthorized("no") }
	if _, err := publish(t, s, "next", start); err == nil || !strings.Contains(err.Error(), "reading ConfigMap kube-public/cluster-info: the API server does not accept the credentials") {
		t.Errorf("refused: %v", err)
	}
}
