package doctor

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/preflight"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// healthy is a node with nothing wrong.
func healthy() Seen {
	s := Seen{
		Config:      &config.Cluster{Paths: config.NewPaths(""), Etcd: config.Etcd{Local: &config.LocalEtcd{DataDir: "/var/lib/etcd"}}},
		Initialized: true, Systemd: true, Now: noon,
		API:     API{Asked: true, URL: "https://192.0.2.2:6443", Live: true},
		Runtime: Runtime{Own: true, Socket: "/run/slipway/containerd.sock", Name: "containerd", Version: "v2.1.0"},
		Etcd:    &Etcd{Size: 20 << 20, InUse: 15 << 20, Quota: 2048 << 20, HasLeader: true},
		Disk:    &host.Latency{Dir: "/var/lib/etcd", Samples: 400, P99: 3 * time.Millisecond},
		Certificates: []pki.Expiry{
			{Name: "apiserver", Path: "/etc/kubernetes/pki/apiserver.crt", CA: "ca", NotAfter: noon.AddDate(0, 11, 0)},
			{Name: "ca", Path: "/etc/kubernetes/pki/ca.crt", NotAfter: noon.AddDate(9, 0, 0)},
		},
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		s.Components = append(s.Components, Component{Name: name, Ready: true, State: "Running", Version: "v1.36.3", Manifest: "/etc/kubernetes/manifests/" + name + ".yaml"})
	}
	s.Components[0].Version = "3.6.8-0"
	return s
}

// Each case changes one thing about a healthy node, and has all that is said of it.
func TestDiagnose(t *testing.T) {
	scheduler := func(s *Seen) *Component { return &s.Components[3] }
	for _, tc := range []struct {
		name   string
		change func(*Seen)
		want   []string
	}{
		{"a healthy node", func(*Seen) {}, nil},
		{"a component that crashes", func(s *Seen) {
			c := scheduler(s)
			c.Ready, c.State, c.Why, c.Restarts, c.LastExit = false, "BackOff", "back-off 10s restarting kube-scheduler", 4, "Error, exit code 1"
		}, []string{"error [Component] kube-scheduler is not ready: BackOff: back-off 10s restarting kube-scheduler (4 restarts, last exit: Error, exit code 1): slipway logs kube-scheduler; slipway status kube-scheduler has all that is known"}},
		{"a component that was restarted again and again", func(s *Seen) {
			c := scheduler(s)
			c.Restarts, c.Since, c.LastExit = 3, noon.Add(-time.Minute), "Error, exit code 1"
		}, []string{"warning [Component] kube-scheduler is ready, but was restarted 3 times, last 1m0s ago (Error, exit code 1): slipway logs kube-scheduler --previous says why"}},
		{"restarts of long ago", func(s *Seen) { scheduler(s).Restarts, scheduler(s).Since = 9, noon.Add(-time.Hour) }, nil},
		{"a manifest that is broken while the former version runs", func(s *Seen) { scheduler(s).Problem = "line 3: unknown field" },
			[]string{"warning [Manifest] the manifest of kube-scheduler is not taken, the former version runs on: line 3: unknown field: correct it; slipway validate /etc/kubernetes/manifests/kube-scheduler.yaml names the line"}},
		{"a manifest that is broken and nothing runs", func(s *Seen) {
			s.Components = s.Components[:3]
			s.Refused = []Refusal{{"/etc/kubernetes/manifests/kube-scheduler.yaml", "line 1: not YAML"}}
		}, []string{"error [Manifest] /etc/kubernetes/manifests/kube-scheduler.yaml is not taken, and no pod of it runs: line 1: not YAML: correct it; slipway validate /etc/kubernetes/manifests/kube-scheduler.yaml names the line"}},
		{"a manifest that is gone", func(s *Seen) { s.Components = s.Components[:3] },
			[]string{"error [Component] kube-scheduler is no pod of the supervisor's: it has no manifest: slipway diff shows what is missing in /etc/kubernetes/manifests, slipway init puts it back"}},
		{"a change that was interrupted, with manifests put aside", func(s *Seen) {
			s.Components, s.Unfinished = s.Components[:3], &Unfinished{What: "a move was begun and is not finished", Next: "finish it"}
		}, []string{"error [Unfinished] a move was begun and is not finished: finish it",
			"error [Component] kube-scheduler is no pod of the supervisor's: it has no manifest: finish what was interrupted, or take it back, first"}},
		{"no etcd of this node's own", func(s *Seen) {
			s.Components, s.Etcd = s.Components[1:], nil
			s.Config = &config.Cluster{Paths: s.Config.Paths}
		}, nil},
		{"a version that was given up", func(s *Seen) { scheduler(s).Rejected = "exited with code 1" },
			[]string{"warning [Rollback] a newer version of kube-scheduler was given up, the last good one runs: exited with code 1: correct /etc/kubernetes/manifests/kube-scheduler.yaml; slipway status kube-scheduler shows the end of its log"}},
		{"a pod that the API does not show", func(s *Seen) { scheduler(s).NotShown = "forbidden" },
			[]string{"warning [Mirror] kube-scheduler runs, and the Kubernetes API does not show it: forbidden: slipway events says since when"}},
		{"files that hang", func(s *Seen) { s.Unread, s.Certificates = true, nil },
			[]string{"error [Files] the files of the control plane cannot be read in time: what they would say is not known, and what needs them was not looked at: " +
				"look at dmesg for a disk or file system that hangs: /etc/kubernetes, /var/lib/slipway"}},
		{"a dead supervisor: its pods are not missed", func(s *Seen) {
			s.Supervisor.Err, s.Components = "the supervisor does not run: nothing answers at /run/slipway/slipway.sock", nil
		}, []string{"error [Supervisor] the supervisor does not run: nothing answers at /run/slipway/slipway.sock; what runs goes on, and nothing is restarted: " +
			"systemctl restart slipway.service; journalctl -u slipway.service says why it ended"}},
		{"a dead containerd, without systemd, of an instance", func(s *Seen) {
			s.Systemd, s.Suffix, s.Runtime.Err = false, " --instance b", "connection refused"
		}, []string{"error [Runtime] containerd does not answer at /run/slipway/containerd.sock: connection refused; containers that run go on, and none is started or restarted: " +
			"slipway init phase supervisor containerd --instance b; its log is /var/log/slipway/containerd.log"}},
		{"the user's runtime", func(s *Seen) { s.Runtime = Runtime{Socket: "/run/crio.sock", Err: "no such file"} },
			[]string{"error [Runtime] the container runtime at /run/crio.sock does not answer: no such file: start it; the pods that run go on meanwhile"}},
		{"an API server that does not answer", func(s *Seen) { s.API.Err = "connection refused" },
			[]string{"error [APIServer] the API server does not answer at https://192.0.2.2:6443: connection refused: slipway logs kube-apiserver"}},
		{"an API server that is not ready", func(s *Seen) { s.API.Failing = []string{"etcd", "informer-sync"} },
			[]string{"error [APIServer] the API server at https://192.0.2.2:6443 is not ready: etcd, informer-sync: slipway logs kube-apiserver"}},
		{"an API server that is not alive", func(s *Seen) { s.API.Live, s.API.Failing = false, []string{"etcd"} },
			[]string{"error [APIServer] the API server at https://192.0.2.2:6443 says that it is not alive: etcd: slipway logs kube-apiserver"}},
		{"a certificate that is not served yet", func(s *Seen) { s.API.Stale = true },
			[]string{"warning [APIServer] the API server serves another certificate than /etc/kubernetes/pki/apiserver.crt: slipway restart kube-apiserver"}},
		{"etcd away", func(s *Seen) { s.Etcd = &Etcd{Err: "connection refused"} },
			[]string{"error [Etcd] etcd does not answer: connection refused: slipway logs etcd"}},
		{"etcd without a leader", func(s *Seen) { s.Etcd.HasLeader = false },
			[]string{"error [Etcd] etcd has no leader: nothing can be written or read: see that its other members run and are reached: slipway logs etcd"}},
		{"etcd that fills up", func(s *Seen) { s.Etcd.Size, s.Etcd.InUse = 1700<<20, 1600<<20 },
			[]string{"warning [EtcdSize] etcd's database has 1700 MB, 83 % of its quota of 2048 MB: a full one takes no more writes: delete what is not needed and defragment it, or raise etcd.local.extraArgs: quota-backend-bytes"}},
		{"etcd that is full, of holes", func(s *Seen) { s.Etcd.Size, s.Etcd.InUse = 2000<<20, 100<<20 }, []string{
			"error [EtcdSize] etcd's database has 2000 MB, 97 % of its quota of 2048 MB: a full one takes no more writes: delete what is not needed and defragment it, or raise etcd.local.extraArgs: quota-backend-bytes",
			"warning [EtcdFragmentation] of the 2000 MB of etcd's database only 100 MB are in use: defragment it in a quiet hour, with etcdctl defrag"}},
		{"a slow disk", func(s *Seen) { s.Disk.P99, s.Disk.Samples = 25*time.Millisecond, 70 },
			[]string{"warning [DiskLatency] the disk of /var/lib/etcd takes 25ms to make a small write durable (99th percentile of 70), etcd wants less than 10ms; few samples, so measure again: give etcd a faster disk, or one of its own: etcd.local.dataDir"}},
		{"certificates: expired, soon, soon for an authority, damaged, and one that another has to sign", func(s *Seen) {
			s.Certificates = []pki.Expiry{
				{Name: "apiserver", Path: "/p/apiserver.crt", CA: "ca", NotAfter: noon.Add(-time.Hour)},
				{Name: "admin.conf", Path: "/p/admin.conf", CA: "ca", NotAfter: noon.AddDate(0, 0, 29)},
				{Name: "etcd-peer", Path: "/p/peer.crt", CA: "etcd-ca", NotAfter: noon.Add(30 * time.Hour), External: true},
				{Name: "ca", Path: "/p/ca.crt", NotAfter: noon.AddDate(0, 0, 100)},
				{Name: "scheduler.conf", Path: "/p/scheduler.conf", CA: "ca", Err: errors.New(`reading "/p/scheduler.conf": not a kubeconfig`)},
				{Name: "kubelet.conf", Path: "/p/kubelet.conf", CA: "ca", Missing: true},
			}
		}, []string{
			"error [Certificate] certificate /p/apiserver.crt expired on 2026-03-01 11:00 UTC: slipway certs renew apiserver",
			`error [Certificate] reading "/p/scheduler.conf": not a kubeconfig: bring a sound file, or remove it with its key and run slipway init`,
			"warning [Certificate] certificate /p/admin.conf expires on 2026-03-30 12:00 UTC, in 29 days: slipway certs renew admin.conf",
			"warning [Certificate] certificate /p/peer.crt expires on 2026-03-02 18:00 UTC, in 30 hours: have it signed anew by its authority, whose key is not on this machine: slipway certs generate-csr makes the request",
			"warning [Certificate] certificate authority /p/ca.crt expires on 2026-06-09 12:00 UTC, in 100 days: slipway certs rotate-ca: all that it signed ends with it",
		}},
		{"certificates that are made for 20 days: one that was to be renewed long ago", func(s *Seen) {
			s.Certificates = []pki.Expiry{
				{Name: "apiserver", Path: "/p/apiserver.crt", CA: "ca", NotAfter: noon.AddDate(0, 0, 19), Life: 20 * 24 * time.Hour},
				{Name: "etcd-peer", Path: "/p/peer.crt", CA: "etcd-ca", NotAfter: noon.AddDate(0, 0, 6), Life: 20 * 24 * time.Hour},
				{Name: "admin.conf", Path: "/p/admin.conf", CA: "ca", NotAfter: noon.AddDate(0, 0, 4), Life: 20 * 24 * time.Hour},
				{Name: "scheduler.conf", Path: "/p/scheduler.conf", CA: "ca", NotAfter: noon.AddDate(0, 0, 29), Life: 365 * 24 * time.Hour},
			}
		}, []string{
			"warning [Certificate] certificate /p/admin.conf expires on 2026-03-05 12:00 UTC, in 4 days: slipway certs renew admin.conf",
			"warning [Certificate] certificate /p/scheduler.conf expires on 2026-03-30 12:00 UTC, in 29 days: slipway certs renew scheduler.conf",
		}},
		{"what preflight finds, by its severity, notes last", func(s *Seen) {
			s.Files = []preflight.Problem{{Name: "Certificates", Severity: preflight.Fatal, Message: "truncated"}}
			s.Machine = []preflight.Problem{{Name: "Port-10250", Message: "taken", Fix: "move it", Later: true}, {Name: "Swap", Message: "on"}, {Name: "Port-10259", Severity: preflight.Fatal, Message: "taken by nginx"}}
		}, []string{"error [Certificates] truncated: ", "error [Port-10259] taken by nginx: ", "warning [Swap] on: ", "note [Port-10250] taken: move it"}},
		{"a look that hangs", func(s *Seen) { s.Unanswered = []string{"the disk of /var/lib/etcd"} },
			[]string{"warning [Unanswered] the disk of /var/lib/etcd could not be looked at in time: run slipway doctor again; if it is the same, look at dmesg for a disk or file system that hangs"}},
		{"versions that do not go together", func(s *Seen) { s.Components[2].Version, s.Components[3].Version = "v1.34.4", "v1.37.0" }, []string{
			"error [VersionSkew] kube-controller-manager v1.34.4 is more than one minor version older than kube-apiserver v1.36.3: upgrade kube-controller-manager",
			"error [VersionSkew] kube-scheduler v1.37.0 is newer than kube-apiserver v1.36.3: upgrade kube-apiserver first"}},
		{"a machine without a control plane: nothing of it is missed", func(s *Seen) {
			s.Initialized, s.Components, s.API, s.Etcd = false, nil, API{}, nil
			s.Supervisor.Err, s.Runtime.Err = "does not run", "no such file"
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := healthy()
			tc.change(&s)
			var got []string
			for _, f := range Diagnose(s) {
				got = append(got, f.Severity.String()+" ["+f.Check+"] "+f.Message+": "+f.Fix)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("findings differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWorst(t *testing.T) {
	for _, tc := range []struct {
		found []Finding
		worst Severity
		any   bool
	}{
		{nil, Note, false}, {[]Finding{{Severity: Note}}, Note, false},
		{[]Finding{{Severity: Warning}, {Severity: Note}}, Warning, true}, {[]Finding{{Severity: Error}, {Severity: Warning}}, Error, true},
	} {
		if worst, any := Worst(tc.found); worst != tc.worst || any != tc.any {
			t.Errorf("%v: %s, %v", tc.found, worst, any)
		}
	}
}

const apiManifest = `apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver}
spec:
  containers:
  - name: kube-apiserver
    image: example.com:5000/kube-apiserver:v1.35.4@sha256:0123
    command: [kube-apiserver, --advertise-address=192.0.2.7, --secure-port=7443, "--service-cluster-ip-range=10.0.0.0/16,fd00::/108", --client-ca-file=/srv/pki/ca.crt, --etcd-servers=https://127.0.0.1:2379]
`

func TestRunningIsWhatTheManifestsSay(t *testing.T) {
	base := config.Cluster{Paths: config.NewPaths(""), BindPort: 6443, NodeName: "other", KubernetesVersion: "v1.36.3", PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Etcd: config.Etcd{Local: &config.LocalEtcd{DataDir: "/var/lib/etcd"}}}
	etcd := "spec: {containers: [{name: etcd, image: etcd, command: [etcd, --data-dir=/data, --name=cp-1, '--listen-metrics-urls=http://127.0.0.1:3381']}]}"
	got := Running(base, map[string][]byte{"kube-apiserver": []byte(apiManifest), "etcd": []byte(etcd), "kube-scheduler": []byte("{{ broken")})
	want := base
	want.Paths.PKI = "/srv/pki"
	want.AdvertiseAddress, want.BindPort, want.NodeName, want.KubernetesVersion = netip.MustParseAddr("192.0.2.7"), 7443, "cp-1", "v1.35.4"
	want.ServiceSubnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00::/108")}
	want.Etcd = config.Etcd{Local: &config.LocalEtcd{DataDir: "/data", ExtraArgs: []config.Arg{{Name: "data-dir", Value: "/data"}, {Name: "name", Value: "cp-1"}, {Name: "listen-metrics-urls", Value: "http://127.0.0.1:3381"}}}}
	opts := []cmp.Option{cmpopts.IgnoreFields(config.Cluster{}, "APIServer"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if diff := cmp.Diff(&want, got, opts...); diff != "" {
		t.Errorf("cluster differs (-want +got):\n%s", diff)
	}
	remote := strings.Replace(apiManifest, "127.0.0.1:2379", "192.0.2.50:2379", 1)
	if got := Running(base, map[string][]byte{"kube-apiserver": []byte(remote)}); got.Etcd.Local != nil || got.Etcd.External == nil {
		t.Errorf("an external etcd: %+v", got.Etcd)
	}
}
