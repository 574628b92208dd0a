package bootstraptoken_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const infoPath = "/api/v1/namespaces/kube-public/configmaps/cluster-info"

// run is one run of the phase at a time, against the server; it returns the tokens and what was told.
func run(t *testing.T, s *kubeapitest.Server, at time.Time, tokens ...config.BootstrapToken) (*phases.Join, string, error) {
	t.Helper()
	return runWithin(t, s, 10*time.Second, at, tokens...)
}

// runWithin is run with so much time for the API.
func runWithin(t *testing.T, s *kubeapitest.Server, limit time.Duration, at time.Time, tokens ...config.BootstrapToken) (*phases.Join, string, error) {
	t.Helper()
	c := &config.Cluster{Paths: config.NewPaths(""), AdvertiseAddress: netip.MustParseAddr("192.0.2.10"), BindPort: 6443, BootstrapTokens: tokens,
		Timeouts: config.Timeouts{KubernetesAPICall: limit}}
	files := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	admin, err := document.New("kubernetes", "https://192.0.2.10:6443", "admin", []byte("PEM"), []byte("c"), []byte("k")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Put(artifact.File{Path: c.Paths.Kubeconfig("admin.conf"), Data: admin, Mode: 0o600, Secret: true}); err != nil {
		t.Fatal(err)
	}
	var told []string
	env := &phases.Env{Config: c, Files: files, API: s.API(t, false), Now: func() time.Time { return at }, Join: &phases.Join{},
		Report: func(e phases.Event) { told = append(told, e.Text) }}
	err = bootstraptoken.New().Begin(t.Context(), env)
	return env.Join, strings.Join(told, "\n"), err
}

// signing returns a server whose controller manager signs cluster-info with the tokens that are there.
func signing(t *testing.T) *kubeapitest.Server {
	s := kubeapitest.New(t)
	tokens := map[string]string{}
	s.Stored = func(path string, o *unstructured.Unstructured) {
		if token, err := bootstraptoken.FromSecret(o); err == nil {
			tokens[token.ID] = token.Secret
		}
		if path != infoPath {
			return
		}
		content, _, _ := unstructured.NestedString(o.Object, "data", "kubeconfig")
		for id, secret := range tokens {
			unstructured.SetNestedField(o.Object, sign(content, id, secret), "data", "jws-kubeconfig-"+id)
		}
	}
	return s
}

func sign(content, id, secret string) string {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"` + id + `"}`))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(header + "." + base64.RawURLEncoding.EncodeToString([]byte(content))))
	return header + ".." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// signAll touches cluster-info, as the signer does when it sees a token.
func signAll(t *testing.T, s *kubeapitest.Server) {
	s.Update(t, infoPath, "kube-controller-manager", func(o *unstructured.Unstructured) {
		touched, _, _ := unstructured.NestedString(o.Object, "data", "touched")
		unstructured.SetNestedField(o.Object, touched+"x", "data", "touched")
	})
}

// made is the token that a configuration without any asks for.
func made() config.BootstrapToken {
	return config.BootstrapToken{TTL: 24 * time.Hour, Usages: bootstraptoken.DefaultUsages(), Groups: bootstraptoken.DefaultGroups()}
}

// runSigned is run, with the signer touching cluster-info until the run ends.
func runSigned(t *testing.T, s *kubeapitest.Server, at time.Time, tokens ...config.BootstrapToken) (string, string) {
	t.Helper()
	type result struct {
		join *phases.Join
		told string
		err  error
	}
	done := make(chan result)
	go func() {
		j, told, err := run(t, s, at, tokens...)
		done <- result{j, told, err}
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case r := <-done:
			if r.err != nil {
				t.Fatal(r.err)
			}
			return strings.Join(r.join.Tokens, " "), r.told
		case <-tick.C:
			if s.Object(infoPath) != nil {
				signAll(t, s)
			}
		}
	}
}

func TestTokenIsKeptWhileHalfOfItsTimeIsLeft(t *testing.T) {
	s := signing(t)
	first, told := runSigned(t, s, start, made())
	if _, _, err := bootstraptoken.Parse(first); err != nil || !strings.Contains(told, "created ConfigMap kube-public/cluster-info") {
		t.Fatalf("%q: %v, %s", first, err, told)
	}
	if join, told, err := run(t, s, start.Add(11*time.Hour), made()); err != nil || strings.Join(join.Tokens, " ") != first || told != "" {
		t.Errorf("11 hours later: another token, or %s, %v", told, err)
	}
	third, _ := runSigned(t, s, start.Add(13*time.Hour), made())
	if third == first {
		t.Error("13 hours later the token is still the same")
	}
	if n := len(slices.DeleteFunc(s.Paths(), func(p string) bool { return !strings.Contains(p, "/bootstrap-token-") })); n != 2 {
		t.Errorf("%d tokens", n)
	}
}

func TestGivenTokenKeepsItsEnd(t *testing.T) {
	s := signing(t)
	given := made()
	given.ID, given.Secret, given.Description = "aaaaaa", "0123456789aaaaaa", "rack 4"
	end := func() time.Time {
		token, err := bootstraptoken.FromSecret(s.Object("/api/v1/namespaces/kube-system/secrets/bootstrap-token-aaaaaa"))
		if err != nil {
			t.Fatal(err)
		}
		return token.Expires
	}
	runSigned(t, s, start, given)
	for _, tc := range []struct {
		after, ttl time.Duration
		want       time.Time
	}{
		{time.Hour, 24 * time.Hour, start.Add(24 * time.Hour)},
		{time.Hour, 2 * time.Hour, start.Add(3 * time.Hour)},        // it would last too long
		{time.Hour, 48 * time.Hour, start.Add(49 * time.Hour)},      // too short
		{time.Hour, 0, time.Time{}},                                 // for ever
		{time.Hour, 0, time.Time{}},                                 // likewise
		{2 * time.Hour, 24 * time.Hour, start.Add(26 * time.Hour)},  // and no more
		{15 * time.Hour, 24 * time.Hour, start.Add(39 * time.Hour)}, // less than half is left
		{15*time.Hour + 1, 24 * time.Hour, start.Add(39 * time.Hour)},
	} {
		given.TTL = tc.ttl
		runSigned(t, s, start.Add(tc.after), given)
		if got := end(); !got.Equal(tc.want) {
			t.Errorf("after %v with %v: %v, want %v", tc.after, tc.ttl, got, tc.want)
		}
	}
}

// A signature of another text, as of before the endpoint was changed, is none.
func TestSignatureIsAwaited(t *testing.T) {
	s := kubeapitest.New(t)
	stale := made()
	stale.ID, stale.Secret = "aaaaaa", "0123456789aaaaaa"
	s.Stored = func(path string, o *unstructured.Unstructured) {
		if path == infoPath {
			unstructured.SetNestedField(o.Object, sign("another text", "aaaaaa", stale.Secret), "data", "jws-kubeconfig-aaaaaa")
		}
	}
	_, _, err := runWithin(t, s, time.Second, start, stale)
	if err == nil || !strings.Contains(err.Error(), "bootstrapsigner") || !strings.Contains(err.Error(), "gave up after 1s (timeouts.kubernetesAPICall)") || strings.Contains(err.Error(), stale.Secret) {
		t.Errorf("%v", err)
	}
	// A token that signs nothing is not waited for.
	stale.Usages = []string{"authentication"}
	if _, _, err := run(t, s, start, stale); err != nil {
		t.Error(err)
	}
}

// The controller manager signs seconds after it leads; init must not wait for that.
func TestClusterInfoIsSignedFromTheStart(t *testing.T) {
	s := kubeapitest.New(t) // nobody signs here
	join, _, err := run(t, s, start, made())
	if err != nil {
		t.Fatal(err)
	}
	id, secret, err := bootstraptoken.Parse(join.Tokens[0])
	if err != nil || !bootstraptoken.Signed(s.Object(infoPath), config.BootstrapToken{ID: id, Secret: secret}) {
		t.Errorf("%v, %v", err, s.Object(infoPath))
	}
}

// The examples are signatures that Kubernetes makes: k8s.io/cluster-bootstrap v0.36.3 token/jws.
func TestSigned(t *testing.T) {
	token := config.BootstrapToken{ID: "joshua", Secret: "my voice is my passcode"}
	info := func(signature string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{
			"kubeconfig": "Hello from the other side. I must have called a thousand times.", "jws-kubeconfig-joshua": signature}}}
	}
	const good = "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
	if made := bootstraptoken.Sign("Hello from the other side. I must have called a thousand times.", token); made != good {
		t.Errorf("signed as %s, want %s", made, good)
	}
	if !bootstraptoken.Signed(info(good), token) {
		t.Error("a good signature is refused")
	}
	for _, bad := range []string{"", "..", good + "A", strings.Replace(good, "..", ".e30.", 1), good[:len(good)-4] + "AAAA", "a..b", "a..!"} {
		if bootstraptoken.Signed(info(bad), token) {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestParse(t *testing.T) {
	if id, secret, err := bootstraptoken.Parse("aaaaaa.0123456789aaaaaa"); err != nil || id != "aaaaaa" || secret != "0123456789aaaaaa" {
		t.Error(id, secret, err)
	}
	for _, bad := range []string{"", "aaaaaa", "AAAAAA.0123456789aaaaaa", "aaaaaa.0123456789aaaaa", "aaaaaa-0123456789aaaaaa", "aaaaaa.0123456789aaaaaa\n", "SECRET"} {
		if _, _, err := bootstraptoken.Parse(bad); err == nil || bad == "SECRET" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	seen := map[string]bool{}
	for range 100 {
		id, secret := bootstraptoken.Generate()
		if _, _, err := bootstraptoken.Parse(id + "." + secret); err != nil || seen[secret] {
			t.Fatalf("generated %s.%s: %v", id, secret, err)
		}
		seen[secret] = true
	}
}
