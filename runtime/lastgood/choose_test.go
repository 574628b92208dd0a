package lastgood

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// version is a static pod whose uid and hash are its name.
func version(name, rollback string) *manifest.StaticPod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "etcd-node", Annotations: map[string]string{AnnotationRollback: rollback}}}
	return &manifest.StaticPod{Pod: pod, UID: name, SpecHash: name, Source: "/etc/kubernetes/manifests/etcd.yaml"}
}

func TestChoose(t *testing.T) {
	rejected := func(name string) *Rejection { return &Rejection{Version: name + "/" + name, Good: "good/good"} }
	for name, tc := range map[string]struct {
		want     *manifest.StaticPod
		good     string
		rejected *Rejection
		run      string
		stands   bool // in for the rejected version
		forgive  bool
	}{
		"nothing is stored":                          {want: version("new", "true"), run: "new/new"},
		"nothing is wanted":                          {good: "good", run: ""},
		"nothing is wanted, one was rejected":        {good: "good", rejected: rejected("bad"), run: ""},
		"a new version":                              {want: version("new", "true"), good: "good", run: "new/new"},
		"the good version":                           {want: version("good", "true"), good: "good", run: "good/good"},
		"the rejected version":                       {want: version("bad", "true"), good: "good", rejected: rejected("bad"), run: "good/good", stands: true},
		"the version after the rejected one":         {want: version("new", "true"), good: "good", rejected: rejected("bad"), run: "new/new", forgive: true},
		"back to the good one by hand":               {want: version("good", "true"), good: "good", rejected: rejected("bad"), run: "good/good", forgive: true},
		"the annotation is off":                      {want: version("bad", "false"), good: "good", rejected: rejected("bad"), run: "bad/bad", forgive: true},
		"there is no annotation":                     {want: version("bad", ""), good: "good", rejected: rejected("bad"), run: "bad/bad", forgive: true},
		"the good one is lost":                       {want: version("bad", "true"), rejected: rejected("bad"), run: "bad/bad", forgive: true},
		"the rejected one has become good elsewhere": {want: version("bad", "true"), good: "bad", rejected: rejected("bad"), run: "bad/bad", forgive: true},
	} {
		stored := Record{Rejected: tc.rejected}
		if tc.good != "" {
			stored.Good = version(tc.good, "true")
		}
		got := Choose(tc.want, stored)
		if Version(got.Run) != tc.run || (got.Rejected != nil) != tc.stands || got.Forgive != tc.forgive {
			t.Errorf("%s: runs %q, stands in: %t, forgives: %t; want %q, %t, %t", name, Version(got.Run), got.Rejected != nil, got.Forgive, tc.run, tc.stands, tc.forgive)
		}
	}
}

func TestTheGoodVersionIsShownWithTheFileThatIsWanted(t *testing.T) {
	want, good := version("bad", "true"), version("good", "true")
	want.Source = "/etc/kubernetes/manifests/etcd-2.yaml"
	got := Choose(want, Record{Good: good, Rejected: &Rejection{Version: "bad/bad"}})
	if got.Run.Source != want.Source || good.Source == want.Source {
		t.Errorf("runs from %s; the stored one says %s", got.Run.Source, good.Source)
	}
}

func TestReplaces(t *testing.T) {
	for name, tc := range map[string]struct {
		want *manifest.StaticPod
		good *manifest.StaticPod
		yes  bool
	}{
		"a good version to return to": {want: version("bad", "true"), good: version("good", ""), yes: true},
		"none":                        {want: version("bad", "true")},
		"the same":                    {want: version("bad", "true"), good: version("bad", "true")},
		"not asked for":               {want: version("bad", ""), good: version("good", "true")},
		"refused":                     {want: version("bad", "false"), good: version("good", "true")},
		"nothing is wanted":           {good: version("good", "true")},
	} {
		if got := Replaces(Record{Good: tc.good}, tc.want); got != tc.yes {
			t.Errorf("%s: %t", name, got)
		}
	}
}
