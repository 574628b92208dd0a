package host

import "testing"

// The lines are what the programs of Kubernetes 1.36.3 and etcd 3.6.8 print.
func TestLikelyCause(t *testing.T) {
	const stack = `"stacktrace":"go.etcd.io/etcd/server/v3/etcdmain.startEtcdOrProxyV2\n\tgo.etcd.io/etcd/server/v3@v3.6.8/etcdmain/etcd.go:183"}`
	for _, tc := range []struct {
		component, line, want string
		waits                 bool
	}{
		{"kube-apiserver", `Error: unknown flag: --no-such-flag`,
			"the flag --no-such-flag is not one that kube-apiserver knows: check its extraArgs", false},
		{"etcd", `flag provided but not defined: -no-such-flag`,
			"the flag --no-such-flag is not one that etcd knows: check its extraArgs", false},
		{"kube-apiserver", `Error: invalid argument "abc" for "--secure-port" flag: strconv.ParseInt: parsing "abc": invalid syntax`,
			`the value "abc" of the flag --secure-port is not valid: check the extraArgs of kube-apiserver`, false},
		{"kube-apiserver", `E1120 16:36:38.339855   29339 run.go:72] "command failed" err="unrecognized feature gate: Nope"`,
			"kube-apiserver of this version has no feature gate Nope: check featureGates and extraArgs", false},
		{"kube-apiserver", `E1120 16:36:38.392986   29348 run.go:72] "command failed" err="enable-admission-plugins plugin \"Nope\" is unknown"`,
			"there is no admission plugin Nope: check the extraArgs of kube-apiserver", false},
		{"kube-controller-manager", `E1120 16:37:43.242518   29435 run.go:72] "command failed" err="\"nope\" is not in the list of known controllers"`,
			"there is no controller nope: check the extraArgs of kube-controller-manager", false},
		{"kube-scheduler", `E1120 16:36:38.605746   29356 run.go:72] "command failed" err="failed to create listener: failed to listen on 127.0.0.1:10259: listen tcp 127.0.0.1:10259: bind: address already in use"`,
			"another program listens on 127.0.0.1:10259: end it, or give kube-scheduler another port", false},
		{"etcd", `{"level":"fatal","ts":"2026-11-20T16:36:38.069638Z","caller":"etcdmain/etcd.go:183","msg":"discovery failed","error":"listen tcp 127.0.0.1:2379: bind: address already in use",` + stack,
			"another program listens on 127.0.0.1:2379: end it, or give etcd another port", false},
		{"etcd", `{"level":"fatal","ts":"2026-11-20T16:36:38.069638Z","caller":"etcdmain/etcd.go:183","msg":"discovery failed","error":"cannot access data directory: mkdir /var/lib/etcd: permission denied",` + stack,
			"etcd may not use /var/lib/etcd: check owner and mode", false},
		{"etcd", `{"level":"fatal","ts":"2026-11-20T16:36:38.069638Z","caller":"etcdmain/etcd.go:198","msg":"listener failed","error":"open /etc/kubernetes/pki/etcd/server.crt: no such file or directory",` + stack,
			"etcd finds no file /etc/kubernetes/pki/etcd/server.crt: is its directory mounted into the pod?", false},
		{"etcd", `{"level":"fatal","ts":"2026-11-20T16:36:38.069638Z","caller":"etcdmain/etcd.go:198","msg":"listener failed","error":"tls: private key does not match public key",` + stack,
			"a certificate and its key do not belong together: renew the pair of etcd", false},
		{"etcd", `{"level":"panic","ts":"2026-11-20T16:38:28.686768Z","caller":"etcdserver/bootstrap.go:663","msg":"failed to create WAL","error":"no space left on device",` + stack,
			"a disk that etcd writes to is full: make room", false},
		{"kube-controller-manager", `E1120 16:37:43.190337   29429 run.go:72] "command failed" err="unable to load client CA provider: open /nonexistent/ca.crt: no such file or directory"`,
			"kube-controller-manager finds no file /nonexistent/ca.crt: is its directory mounted into the pod?", false},
		{"kube-controller-manager", `E1120 16:37:43.401198   29443 run.go:72] "command failed" err="unable to load client CA provider: error loading CA bundle for \"client-ca-bundle::trunc.crt\": data does not contain any valid RSA or ECDSA certificates"`,
			"a certificate or key file of kube-controller-manager is damaged", false},
		{"kube-apiserver", `E1120 16:36:38.733500   29364 run.go:72] "command failed" err="error reading public key file sa.key: data does not contain any valid RSA or ECDSA public keys"`,
			"a certificate or key file of kube-apiserver is damaged", false},
		{"kube-apiserver", `E1120 16:38:28.387286   29549 run.go:72] "command failed" err="error creating storage factory: context deadline exceeded"`,
			"kube-apiserver does not reach etcd: is it running, and are its endpoints right?", true},
		{"kube-controller-manager", `E1120 16:37:22.998836   29410 run.go:72] "command failed" err="unable to load configmap based request-header-client-ca-file: Get \"https://127.0.0.1:6443/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication\": dial tcp 127.0.0.1:6443: connect: connection refused"`,
			"kube-controller-manager reaches nothing at 127.0.0.1:6443: is the program there running?", true},
		{"kube-apiserver", `I1120 16:38:08.000000   29549 server.go:152] "Golang settings" GOGC="" GOMAXPROCS="" GOTRACEBACK=""`, "", false},
	} {
		cause, known := LikelyCause(tc.component, []string{"a line before", tc.line, "a line after"})
		if known != (tc.want != "") || cause.Text != tc.want || cause.Waits != tc.waits {
			t.Errorf("%s\n got %q (waits %t)\nwant %q (waits %t)", tc.line, cause.Text, cause.Waits, tc.want, tc.waits)
		}
	}
}

func TestReadableShortensEtcdLines(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"warn","ts":"2026-11-20T16:36:38Z","caller":"a.go:1","msg":"no error here"}`:               "2026-11-20T16:36:38Z warn no error here",
		`{"level":"fatal","ts":"2026-11-20T16:36:38Z","msg":"listener failed","error":"e","stacktrace":"s"}`: "2026-11-20T16:36:38Z fatal listener failed: e",
		`{"not":"a log line"}`: `{"not":"a log line"}`,
		`Error: unknown flag`:  `Error: unknown flag`,
	} {
		if got := readable(line); got != want {
			t.Errorf("readable(%s) = %q, want %q", line, got, want)
		}
	}
}
