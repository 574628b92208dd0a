package kubeletconfig

import (
	"bytes"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

func options() Options {
	return Options{
		StaticPodPath:            "/etc/kubernetes/manifests",
		ClusterDNS:               []string{"10.96.0.10"},
		ClusterDomain:            "cluster.local",
		ClientCAFile:             "/etc/kubernetes/pki/ca.crt",
		CgroupDriver:             "systemd",
		ContainerRuntimeEndpoint: "unix:///run/slipway/containerd.sock",
	}
}

// render returns the configuration's YAML, or the error's text.
func render(t *testing.T, o Options, user string) string {
	t.Helper()
	var document []byte
	if user != "" {
		document = []byte(user)
	}
	cfg, err := New(o, document)
	if err != nil {
		return err.Error()
	}
	data, err := Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const defaults = `apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/slipway/containerd.sock
healthzBindAddress: 127.0.0.1
healthzPort: 10248
kind: KubeletConfiguration
rotateCertificates: true
staticPodPath: /etc/kubernetes/manifests
`

func TestDefaults(t *testing.T) {
	if diff := cmp.Diff(defaults, render(t, options(), "")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestUserFieldsWin(t *testing.T) {
	for _, tc := range []struct {
		user string
		want []string // lines that the defaults do not have
		gone []string // lines of the defaults that are gone
	}{
		{`{"clusterDNS":["10.96.0.53","10.96.0.54"]}`, []string{"- 10.96.0.53", "- 10.96.0.54"}, []string{"- 10.96.0.10"}},
		{`{"clusterDNS":[]}`, nil, []string{"clusterDNS:", "- 10.96.0.10"}},
		{`{"authentication":{"anonymous":{"enabled":true}}}`, nil, []string{"    enabled: false"}},
		{`{"rotateCertificates":false}`, nil, []string{"rotateCertificates: true"}},
		{`{"healthzPort":0}`, []string{"healthzPort: 0"}, []string{"healthzPort: 10248"}},
		{`{"cgroupDriver":"cgroupfs","authorization":{"mode":"AlwaysAllow"}}`, []string{"  mode: AlwaysAllow", "cgroupDriver: cgroupfs"}, []string{"  mode: Webhook", "cgroupDriver: systemd"}},
		{`{"maxPods":42,"failSwapOn":false,"memorySwap":{"swapBehavior":"LimitedSwap"}}`, []string{"failSwapOn: false", "maxPods: 42", "memorySwap:", "  swapBehavior: LimitedSwap"}, nil},
		{`{"staticPodPath":""}`, nil, nil}, // the kubelet cannot tell it from no staticPodPath
		{`{"evictionSoftGracePeriod":{"memory.available":"0s"},"syncFrequency":"0s"}`, []string{"evictionSoftGracePeriod:", "  memory.available: 0s"}, nil},
		{`{"logging":{"verbosity":4,"flushFrequency":1000000}}`, []string{"logging:", "  flushFrequency: 1000000", "  verbosity: 4"}, nil},
	} {
		var want, gone []string
		got := strings.Split(render(t, options(), tc.user), "\n")
		base := strings.Split(defaults, "\n")
		for _, line := range got {
			if !slices.Contains(base, line) {
				want = append(want, line)
			}
		}
		for _, line := range base {
			if !slices.Contains(got, line) {
				gone = append(gone, line)
			}
		}
		if diff := cmp.Diff(tc.gone, gone); diff != "" {
			t.Errorf("%s: lines gone, -want +got:\n%s", tc.user, diff)
		}
		if diff := cmp.Diff(tc.want, want); diff != "" {
			t.Errorf("%s: new lines, -want +got:\n%s", tc.user, diff)
		}
	}
}

func TestWrongUserDocuments(t *testing.T) {
	for _, tc := range []struct{ user, want string }{
		{`{"maxpods":4}`, `unknown field "maxpods"`},
		{`{"maxPods":4,"maxPods":5}`, `duplicate field "maxPods"`},
		{`{"maxPods":"many"}`, "cannot unmarshal string"},
		{`{"kind":"KubeProxyConfiguration","apiVersion":"kubeproxy.config.k8s.io/v1alpha1"}`, "is not a kubelet.config.k8s.io/v1beta1 KubeletConfiguration"},
		{`{"defaultPodSysctls":{"net.ipv4.ip_forward":"1"}}`, "refused by a 1.36 kubelet: remove it"},
	} {
		if got := render(t, options(), tc.user); !strings.Contains(got, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.user, got, tc.want)
		}
	}
}

func TestResolvConfIsWrittenOnlyWhereTheHostHasItsOwn(t *testing.T) {
	o := options()
	o.ResolvConf = "/run/systemd/resolve/resolv.conf"
	if got := render(t, o, ""); !strings.Contains(got, "resolvConf: /run/systemd/resolve/resolv.conf\n") {
		t.Errorf("without the host's resolvConf:\n%s", got)
	}
	if got := render(t, o, `{"resolvConf":""}`); !strings.Contains(got, "resolvConf: \"\"\n") {
		t.Errorf("an empty resolvConf is the user's word for none:\n%s", got)
	}
}

// Pruning must lose nothing: whatever is set, the file decodes to the same value.
func TestMarshalKeepsEveryField(t *testing.T) {
	cfg := &kubeletv1beta1.KubeletConfiguration{}
	fill(reflect.ValueOf(cfg).Elem(), 0)
	cfg.APIVersion, cfg.Kind, cfg.DefaultPodSysctls = apiVersion, kind, nil
	data, err := Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if diff := cmp.Diff(cfg, got); diff != "" {
		t.Errorf("-set +decoded:\n%s", diff)
	}
	again, err := Marshal(got)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("two marshallings differ: %v", err)
	}
}

// fill sets every string, bool, number, list, map and pointer below v to something that is not its zero.
func fill(v reflect.Value, depth int) {
	if depth > 8 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(1_000_000_000) // a whole second, as a duration
	case reflect.Uint32:
		v.SetUint(7)
	case reflect.Pointer:
		if !strings.Contains(v.Type().String(), "Quantity") && !strings.Contains(v.Type().String(), "MonitoringPolicy") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth+1)
		}
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.String {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("k").Convert(v.Type().Key()), reflect.ValueOf("v").Convert(v.Type().Elem()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !strings.Contains(v.Field(i).Type().String(), "Quantity") && v.Type().Field(i).Name != "LoggingConfiguration" && v.Type().Field(i).Name != "Logging" {
				fill(v.Field(i), depth+1)
			}
		}
	}
}

// testdata/fields-1.36.txt lists what the type of k8s.io/kubelet v0.36.3 has. Newer modules know more; whatever that
// is has to be refused by Decode, or a 1.36 kubelet refuses the file.
func TestNewFieldsAreRefused(t *testing.T) {
	data, err := os.ReadFile("testdata/fields-1.36.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields(string(data))
	all := map[string]bool{}
	walk("", reflect.TypeFor[kubeletv1beta1.KubeletConfiguration](), all, nil)
	var news []string
	for _, field := range slices.Sorted(maps.Keys(all)) {
		if !slices.Contains(known, field) {
			news = append(news, field)
		}
	}
	if diff := cmp.Diff([]string{"defaultPodSysctls"}, news); diff != "" {
		t.Errorf("fields that came after 1.36, -refused by decodeInto +in the type:\n%s", diff)
	}
	var document map[string]any
	if err := yaml.Unmarshal([]byte(defaults), &document); err != nil {
		t.Fatal(err)
	}
	for field := range document {
		if !slices.Contains(known, field) {
			t.Errorf("the defaults hold %q, which a 1.36 kubelet does not know", field)
		}
	}
}

// walk collects the JSON paths of a type's fields.
func walk(prefix string, t reflect.Type, into map[string]bool, outer []reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || slices.Contains(outer, t) {
		return
	}
	outer = append(outer, t)
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && name == "":
			walk(prefix, field.Type, into, outer)
		case name != "" && name != "-":
			into[prefix+name] = true
			walk(prefix+name+".", field.Type, into, outer)
		}
	}
}
