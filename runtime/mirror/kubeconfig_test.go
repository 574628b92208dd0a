package mirror

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestKubeconfigsThatCannotWorkSayWhy(t *testing.T) {
	ca := newAuthority(t)
	for _, tc := range []struct {
		name   string
		change func(text string) string
		node   string
		want   string
	}{
		{"good", func(s string) string { return s }, "n1", ""},
		{"another node's", func(s string) string { return s }, "n2",
			`its certificate is node "n1"'s, and this node is called "n2": give --node-name n1, or the kubeconfig of this node`},
		{"context that is not there", func(s string) string { return strings.Replace(s, "current-context: c", "current-context: d", 1) }, "n1",
			`there is no context "d": set current-context`},
		{"plain http", func(s string) string { return strings.Replace(s, "https:", "http:", 1) }, "n1", `server "http://127.0.0.1:1" is not an https URL`},
		{"token", func(s string) string { return strings.Replace(s, "client-key-data", "token", 1) }, "n1", "its user has no client-certificate and client-key"},
		{"unverified", func(s string) string {
			return strings.Replace(s, "server:", "insecure-skip-tls-verify: true\n    server:", 1)
		}, "n1", "a node must know its API server"},
		{"key file that is not there", func(s string) string { return strings.Replace(s, "client-key-data", "client-key: node.key\n    x", 1) }, "n1", "node.key: no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := tempKubeconfig(t)
			ca.writeKubeconfig(path, "https://127.0.0.1:1", "system:node:n1", "system:nodes")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tc.change(string(text))), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = readKubeconfig(path, tc.node)
			if got := ""; tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				if err != nil {
					got = err.Error()
				}
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}

func TestRenewalIsNoticedOnceItIsComplete(t *testing.T) {
	ca, path := newAuthority(t), tempKubeconfig(t)
	ca.writeKubeconfig(path, "https://127.0.0.1:1", "system:node:n1")
	c, err := readKubeconfig(path, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if c.renewed() {
		t.Error("renewed although nobody touched it")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if c.renewed() {
		t.Error("renewed while the file is absent: the connection that works would be given up")
	}
	ca.writeKubeconfig(path, "https://127.0.0.1:1", "system:node:n1")
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if !c.renewed() {
		t.Error("not renewed")
	}
}
