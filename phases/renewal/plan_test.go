package renewal_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

func TestPlan(t *testing.T) {
	c := cluster()
	files := made(t, c, birth)
	items := renewal.Survey(files, c.Paths)
	ours := func(string) bool { return true }
	for _, tc := range []struct {
		name  string
		at    time.Duration
		owns  func(string) bool
		open  func(name string, now time.Time) (*pki.Authority, error)
		tasks string
		held  string // a part of the first
	}{
		{"nothing is due", year / 2, ours, nil, "", ""},
		{"all is due", year / 3 * 2, ours, nil, strings.Join(renewal.Names(), " "), ""},
		{"all expired while the machine was off", 2 * year, ours, nil, strings.Join(renewal.Names(), " "), ""},
		{"only what is ours", year, func(path string) bool { return strings.HasSuffix(path, "peer.crt") }, nil, "etcd-peer", ""},
		{"the clock was ahead when they were made", -year / 2, ours, func(name string, _ time.Time) (*pki.Authority, error) {
			return pki.OpenAuthority(files, c.Paths, name, birth) // of an authority that is older
		}, strings.Join(renewal.Names(), " "), ""},
		{"the clock is before the authority", -year, ours, nil, "", "apiserver cannot be renewed: it is not valid before"},
		{"the clock is after the authority", 11 * year, ours, nil, "", "apiserver cannot be renewed: it expired on 2027-01-02 03:04:05 UTC: certificate authority"},
		{"the key is kept elsewhere", year, ours, func(name string, now time.Time) (*pki.Authority, error) {
			a, err := pki.OpenAuthority(files, c.Paths, name, now)
			if err == nil {
				a.Key = nil
			}
			return a, err
		}, "", "apiserver cannot be renewed: two thirds of its life are over, it ends on 2027-01-02 03:04:05 UTC, and /etc/kubernetes/pki/ca.key is not here"},
		{"the authority is damaged", year, ours, func(string, time.Time) (*pki.Authority, error) { return nil, errors.New("no") }, "", "apiserver cannot be renewed: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := birth.Add(tc.at)
			if tc.open == nil {
				tc.open = func(name string, now time.Time) (*pki.Authority, error) {
					return pki.OpenAuthority(files, c.Paths, name, now)
				}
			}
			tasks, held := renewal.Plan(items, tc.owns, func(name string) (*pki.Authority, error) { return tc.open(name, now) }, now)
			var names []string
			for _, task := range tasks {
				names = append(names, task.Name)
			}
			if got := strings.Join(names, " "); got != tc.tasks {
				t.Errorf("renews %q, want %q", got, tc.tasks)
			}
			if first := strings.Join(held[:min(1, len(held))], ""); (first == "") != (tc.held == "") || !strings.Contains(first, tc.held) {
				t.Errorf("held %q, want %q", first, tc.held)
			}
		})
	}
}

// TestPlanEndsWithTheAuthority: certificates that end with their authority are not renewed over and over until then.
func TestPlanEndsWithTheAuthority(t *testing.T) {
	c := cluster()
	c.CAValidity = year
	files := made(t, c, birth)
	now := birth.Add(year - time.Hour)
	tasks, held := renewal.Plan(renewal.Survey(files, c.Paths), func(string) bool { return true },
		func(name string) (*pki.Authority, error) { return pki.OpenAuthority(files, c.Paths, name, now) }, now)
	if len(tasks) > 0 || len(held) == 0 || !strings.Contains(held[0], "slipway certs rotate-ca --authority ca replaces it") {
		t.Errorf("tasks %v, held %q", tasks, held)
	}
}

func TestStale(t *testing.T) {
	files := made(t, cluster(), birth)
	items := renewal.Survey(files, config.NewPaths(""))
	ours := func(string) bool { return true }
	started := map[string]time.Time{"etcd": birth.Add(-time.Second), "kube-apiserver": birth, "kube-scheduler": birth.Add(-time.Hour)}
	if got := renewal.Stale(items, ours, started); !slices.Equal(got, []string{"etcd", "kube-scheduler"}) {
		t.Errorf("got %q", got)
	}
	if got := renewal.Stale(items, func(string) bool { return false }, started); got != nil {
		t.Errorf("of what is not ours: %q", got)
	}
}

func TestNextLook(t *testing.T) {
	files := made(t, cluster(), birth)
	items := renewal.Survey(files, config.NewPaths(""))
	due := birth.Add(year / 3 * 2)
	for _, tc := range []struct{ now, want time.Time }{
		{birth, birth.Add(time.Hour)},
		{due.Add(-time.Minute), due},
		{due, due.Add(time.Hour)},
	} {
		if got := renewal.NextLook(items, tc.now, tc.now.Add(time.Hour)); !got.Equal(tc.want) {
			t.Errorf("at %s: %s, want %s", tc.now, got, tc.want)
		}
	}
}

func TestMayRestart(t *testing.T) {
	pods := func(down ...string) (all []renewal.Pod) {
		for name, needs := range map[string][]string{"etcd": nil, "kube-apiserver": {"etcd"}, "kube-scheduler": {"kube-apiserver"}, "web": nil} {
			all = append(all, renewal.Pod{Name: name, Ready: !slices.Contains(down, name), Needs: needs})
		}
		return all
	}
	for _, tc := range []struct {
		name, pod   string
		down, stale []string
		want        string
	}{
		{"all is well", "etcd", nil, []string{"etcd"}, ""},
		{"another is down", "kube-apiserver", []string{"etcd"}, []string{"kube-apiserver"}, "etcd is not ready"},
		{"it is down itself", "kube-apiserver", []string{"kube-apiserver"}, []string{"kube-apiserver"}, ""},
		{"what needs it is down", "kube-apiserver", []string{"kube-apiserver", "kube-scheduler"}, []string{"kube-apiserver"}, ""},
		{"the other has expired too", "etcd", []string{"kube-apiserver"}, []string{"etcd", "kube-apiserver"}, ""},
		{"the other waits for one that has expired", "etcd", []string{"kube-scheduler"}, []string{"etcd", "kube-apiserver"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := renewal.MayRestart(tc.pod, pods(tc.down...), tc.stale); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
