package marker

import (
	"strings"
	"testing"
)

func TestMarker(t *testing.T) {
	pod := Pod{Instance: "blue", Namespace: "kube-system", Name: "etcd-n1", UID: "0123456789abcdef"}
	data := Encode(pod)
	const want = `{"instance":"blue","namespace":"kube-system","name":"etcd-n1","uid":"0123456789abcdef"}` + "\n"
	if string(data) != want {
		t.Errorf("encoded %s, want %s", data, want)
	}
	if got, err := Decode(data); got != pod || err != nil {
		t.Errorf("decoded %+v, %v", got, err)
	}
	if pod.FullName() != "kube-system/etcd-n1" {
		t.Errorf("full name %q", pod.FullName())
	}
}

// TestDecodeRefuses: what is removed is found by these names.
func TestDecodeRefuses(t *testing.T) {
	for _, text := range []string{
		"", "null", "[]", "{}", `{"namespace":"a","name":"b"}`,
		`{"namespace":"a","name":"b","uid":".."}`, `{"namespace":"a","name":"b","uid":"."}`, `{"namespace":"a","name":"../b","uid":"c"}`,
		`{"namespace":"/","name":"b","uid":"c"}`, `{"namespace":"a","name":"b","uid":"c/d"}`, `{"namespace":"a_b","name":"b","uid":"c"}`,
		`{"namespace":"a","name":"` + strings.Repeat("b", MaxSize) + `","uid":"c"}`,
	} {
		if got, err := Decode([]byte(text)); err == nil {
			t.Errorf("%.60s is taken for %+v", text, got)
		}
	}
}
