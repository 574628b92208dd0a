package cli

import (
	"errors"
	"testing"
)

// TestFindPod takes a name as a user writes it: the pod's own goes before the manifest's, and what may mean two pods
// means neither.
func TestFindPod(t *testing.T) {
	known := []podName{
		{"kube-system", "etcd-n1", "n1"}, {"kube-system", "etcd-backup-n1", "n1"}, {"kube-system", "dns-n1", "n1"}, {"default", "dns-n1", "n1"},
		{"default", "a-n1", "n1"}, {"default", "a-n1-n1", "n1"}, // of manifests a and a-n1
	}
	// Of log directories the node is not known: any pod with the prefix may be meant.
	unknown := []podName{{namespace: "kube-system", name: "etcd-n1"}, {namespace: "kube-system", name: "etcd-backup-n1"}, {namespace: "default", name: "web-n1"}}
	for _, c := range []struct {
		pods              []podName
		typed, want, hint string // hint of the error
	}{
		{known, "etcd", "kube-system/etcd-n1", ""},
		{known, "etcd-n1", "kube-system/etcd-n1", ""},
		{known, "kube-system/etcd", "kube-system/etcd-n1", ""},
		{known, "kube-system/etcd-backup-n1", "kube-system/etcd-backup-n1", ""},
		{known, "default/dns", "default/dns-n1", ""},
		{known, "a", "default/a-n1", ""},
		{known, "a-n1", "default/a-n1", ""},
		{known, "a-n1-n1", "default/a-n1-n1", ""},
		{known, "dns", `"dns" may mean any of: default/dns-n1, kube-system/dns-n1`, ""},
		{known, "dns-n1", `"dns-n1" may mean any of: default/dns-n1, kube-system/dns-n1`, ""},
		{known, "default/etcd", `no pod is named "default/etcd"`, "there are: default/a-n1, default/a-n1-n1, default/dns-n1, kube-system/dns-n1, kube-system/etcd-backup-n1, kube-system/etcd-n1"},
		{known, "etdc", `no pod is named "etdc"`, "did you mean: etcd"},
		{known, "etcd-bakup", `no pod is named "etcd-bakup"`, "did you mean: etcd-backup"},
		{known, "etc", `no pod is named "etc"`, "did you mean: etcd"},
		{known, "kube-sytem/etcd", `no pod is named "kube-sytem/etcd"`, "did you mean: kube-system/etcd"},
		{known, "", `"" is not the name of a pod`, ""},
		{known, "etcd*", `"etcd*" is not the name of a pod`, ""},
		{known, "kube-system/", `"kube-system/" is not the name of a pod`, ""},
		{unknown, "etcd", `"etcd" may mean any of: kube-system/etcd-backup-n1, kube-system/etcd-n1`, ""},
		{unknown, "etcd-n1", "kube-system/etcd-n1", ""},
		{unknown, "web", "default/web-n1", ""},
		{nil, "etcd", `no pod is named "etcd"`, "there are no pods"},
	} {
		pod, err := findPod(c.typed, c.pods)
		got, hint := pod.full(), ""
		if err != nil {
			got = err.Error()
		}
		if h := (*hinted)(nil); errors.As(err, &h) {
			hint = h.hint
		}
		if got != c.want || hint != c.hint {
			t.Errorf("%q: %s (%s), want %s (%s)", c.typed, got, hint, c.want, c.hint)
		}
	}
}
