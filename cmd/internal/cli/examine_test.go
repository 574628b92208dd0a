package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/doctor"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

// Who does not return in time is named, and what the others saw is kept.
func TestCollectLeavesBehindWhoHangs(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	var seen doctor.Seen
	collect(t.Context(), time.Millisecond, &seen, []look{
		{"a disk that hangs", func(context.Context) func(*doctor.Seen) {
			<-hang
			return func(*doctor.Seen) {}
		}},
		{"who heeds the bound", func(ctx context.Context) func(*doctor.Seen) {
			<-ctx.Done()
			return func(s *doctor.Seen) { s.Runtime.Err = "no answer" }
		}},
	})
	if diff := cmp.Diff([]string{"a disk that hangs"}, seen.Unanswered); diff != "" || seen.Runtime.Err != "no answer" {
		t.Errorf("unanswered (-want +got):\n%s\nruntime: %+v", diff, seen.Runtime)
	}
}

// What a flag says stands against the manifests, and nothing else does.
func TestOverride(t *testing.T) {
	cluster := func(last byte, port uint16) *config.Cluster {
		p := config.NewPaths("")
		p.PKI = fmt.Sprintf("/pki%d", last)
		subnet := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, last, 0, 0}), 16)}
		return &config.Cluster{Paths: p, AdvertiseAddress: netip.AddrFrom4([4]byte{192, 0, 2, last}), BindPort: port, NodeName: fmt.Sprintf("node-%d", last),
			PodSubnets: subnet, ServiceSubnets: subnet, KubernetesVersion: fmt.Sprintf("v1.36.%d", last)}
	}
	runs, flags := cluster(1, 6443), cluster(2, 7443)
	if got := override(runs, flags, func(string) bool { return false }); fmt.Sprint(*got) != fmt.Sprint(*runs) {
		t.Errorf("without flags: %+v, want %+v", got, runs)
	}
	want := cluster(1, 7443)
	got := override(runs, flags, func(flag string) bool { return flag == "apiserver-bind-port" || flag == "ignore-preflight-errors" })
	if got.BindPort != want.BindPort || got.AdvertiseAddress != want.AdvertiseAddress || got.NodeName != want.NodeName {
		t.Errorf("with one flag: %+v", got)
	}
	if got := override(runs, flags, func(string) bool { return true }); fmt.Sprint(*got) != fmt.Sprint(*flags) {
		t.Errorf("with all flags: %+v, want %+v", got, flags)
	}
	if runs.BindPort != 6443 {
		t.Error("override changed what it was given")
	}
	known := newDoctor(Streams{}, &global{}).Flags()
	override(runs, flags, func(flag string) bool {
		if known.Lookup(flag) == nil {
			t.Errorf("doctor has no flag --%s", flag)
		}
		return false
	})
}

func TestInitialized(t *testing.T) {
	paths := config.NewPaths("")
	for name, tc := range map[string]struct {
		node nodeFiles
		want bool
	}{
		"an empty machine":                    {nodeFiles{paths: paths}, false},
		"a manifest":                          {nodeFiles{paths: paths, manifests: map[string][]byte{"etcd": nil}}, true},
		"all manifests lost":                  {nodeFiles{paths: paths, entries: []ledger.Entry{{Kind: ledger.File, Path: paths.KubeletConfig}}}, true},
		"an init --root, or another's ledger": {nodeFiles{paths: paths, entries: []ledger.Entry{{Kind: ledger.File, Path: "/etc/other"}}}, false},
	} {
		if got := tc.node.initialized(); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A control plane whose files cannot be read is not said to be none.
func TestUnreadFilesAreNoMissingControlPlane(t *testing.T) {
	s := doctor.Seen{Unread: true, Config: &config.Cluster{Paths: config.NewPaths("")}}
	d := diagnose(s, "")
	var text strings.Builder
	if err := printDiagnosis(&text, d); err != nil {
		t.Fatal(err)
	}
	if d.ControlPlane != nil || d.Verdict != "error" || strings.Contains(text.String(), "no control plane") ||
		!strings.Contains(text.String(), "this machine, of which is not known whether it has a control plane, has 1 error and 0 warnings") {
		t.Errorf("%v, %s:\n%s", d.ControlPlane, d.Verdict, text.String())
	}
	if looks := (&global{}).looks(s, nodeFiles{}, nil); len(looks) != 0 {
		t.Errorf("looks at %q", looks[0].noun)
	}
	s.Initialized = true
	if d := diagnose(s, ""); d.ControlPlane == nil || !*d.ControlPlane {
		t.Error("a supervisor's socket is a control plane")
	}
	for _, l := range (&global{}).looks(s, nodeFiles{}, nil) {
		if l.noun != "the supervisor" && l.noun != "the container runtime" {
			t.Errorf("looks at %s, which needs files", l.noun)
		}
	}
}

func TestReasons(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "unix", Err: errors.New("connection refused")}
	if got := reasonOfDial(fmt.Errorf("asking: %w", refused)); got != "connection refused" {
		t.Errorf("got %q", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := unasked(ended, refused).Error(); got != "no answer within 4s" {
		t.Errorf("got %q", got)
	}
	if got := unasked(t.Context(), &url.Error{Op: "Get", URL: "https://192.0.2.2:6443/livez", Err: errors.New("EOF")}).Error(); got != "EOF" {
		t.Errorf("got %q", got)
	}
}

func TestFiguresOfEtcd(t *testing.T) {
	const metrics = "# HELP x\netcd_server_has_leader 1\netcd_mvcc_db_total_size_in_bytes 2.097152e+07\netcd_mvcc_db_total_size_in_use_in_bytes 1.048576e+06\netcd_server_quota_backend_bytes 2.147483648e+09\n"
	got, err := etcdFiguresOf(strings.NewReader(metrics))
	if want := (doctor.Etcd{Size: 20 << 20, InUse: 1 << 20, Quota: 2 << 30, HasLeader: true}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := etcdFiguresOf(strings.NewReader("go_goroutines 7\n")); err == nil {
		t.Error("metrics of another program are taken for etcd's")
	}
}

func TestDoctorIsToldOfAnInterruptedChange(t *testing.T) {
	paths, disk := config.NewPaths("no-such-instance"), artifact.Disk{Root: t.TempDir()}
	if u := interruptedChange(disk, paths, ""); u != nil {
		t.Errorf("of none: %+v", u)
	}
	if err := disk.Put(artifact.File{Path: recordPath(paths), Data: []byte(`{"from":"192.0.2.1","to":"192.0.2.2"}`), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	want := &doctor.Unfinished{What: "a move from 192.0.2.1 to 192.0.2.2 was begun and is not finished",
		Next: "finish it: slipway readdress --apiserver-advertise-address 192.0.2.2; go back: slipway readdress --apiserver-advertise-address 192.0.2.1"}
	if diff := cmp.Diff(want, interruptedChange(disk, paths, "")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
