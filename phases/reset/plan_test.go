package reset

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

const (
	ledgerPath = "/var/lib/slipway/ledger.jsonl"
	lockPath   = "/var/lib/slipway/init.lock"
	ownSocket  = "/run/slipway/containerd.sock"
)

var (
	containerdArgv = []string{"/usr/bin/containerd", "--config", "/var/lib/slipway/containerd.toml"}
	superviseArgv  = []string{"/usr/bin/slipway", "supervise"}
	ownRuntime     = ledger.Entry{Kind: ledger.Runtime, Own: true, Socket: ownSocket, Root: "/var/lib/slipway/containerd", State: "/run/slipway/containerd"}
	userRuntime    = ledger.Entry{Kind: ledger.Runtime, Socket: "/run/containerd/containerd.sock"}
)

// inited is what init records, and what the machine shows after it.
func inited() ([]ledger.Entry, Seen) {
	entries := []ledger.Entry{
		{Kind: ledger.Dir, Path: "/var/lib/slipway"},
		ownRuntime,
		{Kind: ledger.Tree, Path: "/run/slipway"},
		{Kind: ledger.Glob, Path: "/var/log/pods/kube-system_etcd-node1_*"},
		{Kind: ledger.Cgroup, Path: "/kubepods"},
		{Kind: ledger.Dir, Path: "/etc/kubernetes"},
		{Kind: ledger.Dir, Path: "/etc/kubernetes/manifests"},
		{Kind: ledger.File, Path: "/etc/kubernetes/admin.conf"},
		{Kind: ledger.File, Path: "/etc/kubernetes/manifests/etcd.yaml"},
		{Kind: ledger.Saved, Path: "/etc/hosts", Data: []byte("old"), Mode: 0o644},
		{Kind: ledger.Tree, Path: "/var/lib/etcd"},
		{Kind: ledger.Tree, Path: "/var/lib/slipway/containerd"},
		{Kind: ledger.Process, Name: "containerd", Role: ledger.PodRuntime, Argv: containerdArgv},
		{Kind: ledger.Process, Name: "containerd", Role: ledger.PodRuntime, Argv: containerdArgv, PID: 100, Start: 1},
		{Kind: ledger.Process, Name: "slipway supervise", Role: ledger.Supervisor, Argv: superviseArgv},
	}
	seen := Seen{
		Ledger: ledgerPath, Lock: lockPath,
		Paths: map[string]Path{
			"/var/lib/slipway":                       {Kind: Directory, Names: []string{"containerd", "init.lock", "ledger.jsonl"}},
			"/var/lib/slipway/containerd":            {Kind: Directory, Names: []string{"x"}},
			ledgerPath:                               {},
			"/run/slipway":                           {Kind: Directory},
			"/var/log/pods/kube-system_etcd-node1_1": {Kind: Directory},
			"/etc/kubernetes":                        {Kind: Directory, Names: []string{"admin.conf", "manifests"}},
			"/etc/kubernetes/manifests":              {Kind: Directory, Names: []string{"etcd.yaml"}},
			"/etc/kubernetes/admin.conf":             {},
			"/etc/kubernetes/manifests/etcd.yaml":    {},
			"/etc/hosts":                             {},
			"/var/lib/etcd":                          {Kind: Directory, Names: []string{"member"}},
		},
		Globs:   map[string][]string{"/var/log/pods/kube-system_etcd-node1_*": {"/var/log/pods/kube-system_etcd-node1_1"}},
		Cgroups: map[string]bool{"/kubepods": true},
		Mounts:  []string{"/", "/run/slipway/containerd/x/rootfs", "/run"},
		Processes: []Process{
			{ProcessID: host.ProcessID{PID: 1, Start: 1}, Argv: []string{"init"}},
			{ProcessID: host.ProcessID{PID: 100, Start: 1}, Argv: containerdArgv},
			{ProcessID: host.ProcessID{PID: 101, Start: 2}, Argv: superviseArgv},
			{ProcessID: host.ProcessID{PID: 102, Start: 3}, Argv: []string{"/usr/bin/containerd-shim-runc-v2", "-id", "x", "-address", ownSocket}},
		},
		Runtimes: map[string]PodsState{ownSocket: {Pods: []Pod{
			{ID: "1", Namespace: "kube-system", Name: "etcd-node1"}, {ID: "2", Namespace: "kube-system", Name: "kube-apiserver-node1"},
			{ID: "3", Namespace: "default", Name: "web-node1"}, {ID: "4", Namespace: "kube-system", Name: "kube-scheduler-node1"},
			{ID: "5", Namespace: "kube-system", Name: "kube-controller-manager-node1"},
		}}},
	}
	return entries, seen
}

const wholePlan = `stop process slipway supervise (pid 101)
stop pod kube-system/kube-scheduler-node1
stop pod kube-system/kube-controller-manager-node1
stop pod kube-system/kube-apiserver-node1
stop pod default/web-node1
stop pod kube-system/etcd-node1
stop process containerd (pid 100)
end shims and containers left of /run/slipway/containerd.sock
unmount what is below /run/slipway/containerd
remove cgroups below /kubepods that are empty
remove /var/lib/slipway/containerd and all that is in it
remove /var/lib/etcd and all that is in it
restore file /etc/hosts
remove file /etc/kubernetes/manifests/etcd.yaml
remove file /etc/kubernetes/admin.conf
remove directory /etc/kubernetes/manifests
remove directory /etc/kubernetes
remove /var/log/pods/kube-system_etcd-node1_1 and all that is in it
remove /run/slipway and all that is in it
remove ledger /var/lib/slipway/ledger.jsonl
remove directory /var/lib/slipway
`

func TestPlanUndoesAnInit(t *testing.T) {
	entries, seen := inited()
	wantPlan(t, entries, seen, wholePlan)
}

func TestPlanOfNothingIsEmpty(t *testing.T) {
	wantPlan(t, nil, Seen{Ledger: ledgerPath, Lock: lockPath}, "")
	wantPlan(t, nil, Seen{Ledger: ledgerPath, Lock: lockPath, Paths: map[string]Path{"/var/lib/slipway": {Kind: Directory, Names: []string{"images"}}}}, "")
}

// What has been undone, or was never done, has no action: so a reset can be repeated, and follow half an init.
func TestPlanAfterAResetThatWasKilledAtItsEnd(t *testing.T) {
	wantPlan(t, nil, Seen{Ledger: ledgerPath, Lock: lockPath, Paths: map[string]Path{"/var/lib/slipway": {Kind: Directory, Names: []string{"init.lock"}}}},
		"remove ledger /var/lib/slipway/ledger.jsonl\nremove directory /var/lib/slipway\n")
	entries, _ := inited()
	entries = slices.DeleteFunc(entries, func(e ledger.Entry) bool { return e.Kind == ledger.Saved })
	wantPlan(t, entries, Seen{Ledger: ledgerPath, Lock: lockPath, Paths: map[string]Path{"/var/lib/slipway": {Kind: Directory, Names: []string{"init.lock", "ledger.jsonl"}}}},
		"remove ledger /var/lib/slipway/ledger.jsonl\nremove directory /var/lib/slipway\n")
}

// Without containerd the containers' processes are stopped in the order of their pods.
func TestPlanWithContainerdDead(t *testing.T) {
	entries, seen := inited()
	container := func(pod, name string, pid int) Container {
		return Container{ID: pod + name, Pod: pod, Name: name, Process: host.ProcessID{PID: pid, Start: 1}}
	}
	seen.Runtimes[ownSocket] = PodsState{Err: errors.New("connection refused"), Containers: []Container{
		container("etcd-node1", "", 1), container("etcd-node1", "etcd", 2), container("kube-apiserver-node1", "", 3), container("kube-apiserver-node1", "kube-apiserver", 4),
	}}
	plan := mustPlan(t, entries, seen)
	const want = `stop process slipway supervise (pid 101)
stop container kube-apiserver of kube-apiserver-node1 (pid 4)
stop container etcd of etcd-node1 (pid 2)
stop sandbox of kube-apiserver-node1 (pid 3)
stop sandbox of etcd-node1 (pid 1)
stop process containerd (pid 100)
end shims and containers left of /run/slipway/containerd.sock
`
	if !strings.HasPrefix(plan, want) {
		t.Errorf("plan (-want +got):\n%s", cmp.Diff(want, plan))
	}
}

func TestPlanWithUnits(t *testing.T) {
	entries := []ledger.Entry{
		{Kind: ledger.File, Path: "/etc/systemd/system/slipway-containerd.service"},
		{Kind: ledger.Unit, Name: "slipway-containerd.service", Role: ledger.PodRuntime},
		{Kind: ledger.Unit, Name: "slipway.service", Role: ledger.Supervisor},
		{Kind: ledger.Unit, Name: "slipway-never-made.service", Role: ledger.Supervisor},
	}
	seen := Seen{
		Ledger: ledgerPath, Lock: lockPath, Paths: map[string]Path{"/etc/systemd/system/slipway-containerd.service": {}},
		Units: map[string]bool{"slipway.service": true, "slipway-containerd.service": true},
	}
	wantPlan(t, entries, seen, `stop unit slipway.service
stop unit slipway-containerd.service
disable unit slipway-containerd.service
disable unit slipway.service
remove file /etc/systemd/system/slipway-containerd.service
reload systemd's units
`)
}

func TestPlanWithARuntimeOfTheUser(t *testing.T) {
	pods := []Pod{{ID: "1", Namespace: "kube-system", Name: "etcd-node1"}}
	shim := Process{Argv: []string{"/usr/bin/containerd-shim-runc-v2", "-address", userRuntime.Socket}}
	seen := Seen{Ledger: ledgerPath, Runtimes: map[string]PodsState{userRuntime.Socket: {Pods: pods}}, Processes: []Process{shim}}
	wantPlan(t, []ledger.Entry{userRuntime}, seen, "stop pod kube-system/etcd-node1\n") // neither shims nor mounts are ours

	seen.Runtimes[userRuntime.Socket] = PodsState{Err: errors.New("connection refused")}
	_, err := Plan([]ledger.Entry{userRuntime}, seen)
	if err == nil || !strings.Contains(err.Error(), "start it, then run reset again") {
		t.Errorf("error %v, want one that says what to do", err)
	}
	seen.Processes = nil // nothing runs, so nothing of ours does
	wantPlan(t, []ledger.Entry{userRuntime}, seen, "")
}

func TestPlanKeepsWhatIsForeign(t *testing.T) {
	for name, tc := range map[string]struct {
		change func([]ledger.Entry, *Seen)
		want   []string // lines of the plan
		absent []string
	}{
		"a file in a directory of ours": {
			change: func(_ []ledger.Entry, s *Seen) {
				s.Paths["/etc/kubernetes/manifests"] = Path{Kind: Directory, Names: []string{"etcd.yaml", "mine.yaml"}}
			},
			want: []string{
				"remove file /etc/kubernetes/manifests/etcd.yaml",
				"keep /etc/kubernetes/manifests/mine.yaml: slipway did not make it",
				"keep /etc/kubernetes/manifests: it is not empty",
				"keep /etc/kubernetes: it is not empty",
			},
			absent: []string{"remove directory /etc/kubernetes"},
		},
		"what is behind a link": {
			change: func(_ []ledger.Entry, s *Seen) { s.Paths["/etc/kubernetes"] = Path{Kind: Link} },
			want:   []string{"keep /etc/kubernetes: it is a symbolic link now, not the directory that slipway made"},
			absent: []string{"remove file /etc/kubernetes/admin.conf", "remove directory /etc/kubernetes"},
		},
		"a tree that is a link": {
			change: func(_ []ledger.Entry, s *Seen) { s.Paths["/var/lib/etcd"] = Path{Kind: Link} },
			want:   []string{"keep /var/lib/etcd: it is a symbolic link now, not the directory that slipway made"},
			absent: []string{"remove /var/lib/etcd", "remove file /var/lib/etcd"},
		},
		"a mount in a tree": {
			change: func(_ []ledger.Entry, s *Seen) { s.Mounts = append(s.Mounts, "/var/lib/etcd/disk", "/var/lib/etcdx") },
			want: []string{
				"keep /var/lib/etcd/disk: something is mounted there that slipway did not mount",
				"remove /var/lib/etcd and all that is in it, but not /var/lib/etcd/disk",
			},
		},
		"a mount upon a tree": {
			change: func(_ []ledger.Entry, s *Seen) { s.Mounts = append(s.Mounts, "/var/lib/etcd") },
			want:   []string{"keep /var/lib/etcd: something is mounted there that slipway did not mount"},
			absent: []string{"remove /var/lib/etcd"},
		},
		"a directory in a file's place": {
			change: func(_ []ledger.Entry, s *Seen) { s.Paths["/etc/kubernetes/admin.conf"] = Path{Kind: Directory} },
			want: []string{
				"keep /etc/kubernetes/admin.conf: it is a directory now, not the file that slipway wrote",
				"keep /etc/kubernetes: it is not empty",
			},
		},
		"a stranger's process with a recorded pid": {
			change: func(_ []ledger.Entry, s *Seen) {
				s.Processes[1] = Process{ProcessID: host.ProcessID{PID: 100, Start: 77}, Argv: []string{"postgres"}}
			},
			absent: []string{"stop process containerd"},
		},
		"images beside the ledger": {
			change: func(_ []ledger.Entry, s *Seen) {
				s.Paths["/var/lib/slipway"] = Path{Kind: Directory, Names: []string{"containerd", "images", "ledger.jsonl"}}
			},
			want:   []string{"remove ledger /var/lib/slipway/ledger.jsonl", "keep /var/lib/slipway/images: slipway did not make it"},
			absent: []string{"remove directory /var/lib/slipway"},
		},
		"nothing of a temporary file": {
			change: func(_ []ledger.Entry, s *Seen) {
				s.Paths["/etc/kubernetes/.admin.conf.slipway-tmp"] = Path{}
				s.Paths["/etc/kubernetes"] = Path{Kind: Directory, Names: []string{".admin.conf.slipway-tmp", "admin.conf", "manifests"}}
			},
			want: []string{"remove file /etc/kubernetes/.admin.conf.slipway-tmp", "remove directory /etc/kubernetes"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			entries, seen := inited()
			tc.change(entries, &seen)
			plan := mustPlan(t, entries, seen)
			rest := plan
			for _, line := range tc.want {
				_, after, found := strings.Cut("\n"+rest, "\n"+line+"\n")
				if !found {
					t.Errorf("no line %q in its place in\n%s", line, plan)
					break
				}
				rest = after
			}
			for _, line := range tc.absent {
				if strings.Contains("\n"+plan, "\n"+line) {
					t.Errorf("a line %q in\n%s", line, plan)
				}
			}
		})
	}
}

func mustPlan(t *testing.T, entries []ledger.Entry, seen Seen) string {
	t.Helper()
	plan, err := Plan(entries, seen)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, a := range plan {
		out.WriteString(a.String() + "\n")
	}
	return out.String()
}

func wantPlan(t *testing.T, entries []ledger.Entry, seen Seen, want string) {
	t.Helper()
	if diff := cmp.Diff(want, mustPlan(t, entries, seen)); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}
