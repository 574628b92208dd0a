package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
)

func runtime(s Seen) []Finding {
	r := s.Runtime
	if r.Err == "" || !s.Initialized {
		return nil
	}
	if !r.Own {
		return []Finding{failure("Runtime", "start it; the pods that run go on meanwhile", "the container runtime at %s does not answer: %s", r.Socket, r.Err)}
	}
	fix := "slipway init phase supervisor containerd" + s.Suffix + "; its log is " + s.Config.Paths.Logs + "/containerd.log"
	if s.Systemd {
		fix = "systemctl restart " + s.Config.Paths.ContainerdUnit + "; journalctl -u " + s.Config.Paths.ContainerdUnit + " says why it ended"
	}
	return []Finding{failure("Runtime", fix, "containerd does not answer at %s: %s; containers that run go on, and none is started or restarted", r.Socket, r.Err)}
}

func supervisor(s Seen) []Finding {
	if s.Supervisor.Err == "" || !s.Initialized {
		return nil
	}
	fix := "slipway init phase supervisor supervise" + s.Suffix + "; its log is " + s.Config.Paths.Logs + "/supervise.log"
	if s.Systemd {
		fix = "systemctl restart " + s.Config.Paths.SupervisorUnit + "; journalctl -u " + s.Config.Paths.SupervisorUnit + " says why it ended"
	}
	return []Finding{failure("Supervisor", fix, "%s; what runs goes on, and nothing is restarted", s.Supervisor.Err)}
}

// crashLoop is how many restarts, the last of them within recently, make a loop of them.
const (
	crashLoop = 3
	recently  = 10 * time.Minute
)

func components(s Seen) []Finding {
	if s.Supervisor.Err != "" || !s.Initialized {
		return nil
	}
	var found []Finding
	for _, c := range s.Components {
		found = append(found, component(s, c)...)
	}
	for _, r := range s.Refused {
		found = append(found, failure("Manifest", "correct it; slipway validate "+r.Source+" names the line", "%s is not taken, and no pod of it runs: %s", r.Source, r.Reason))
	}
	for _, name := range s.expected() {
		known := func(c Component) bool { return c.Name == name }
		told := func(r Refusal) bool { return strings.HasSuffix(r.Source, "/"+name+".yaml") }
		if !slices.ContainsFunc(s.Components, known) && !slices.ContainsFunc(s.Refused, told) {
			fix := fmt.Sprintf("slipway diff%s shows what is missing in %s, slipway init%s puts it back", s.Suffix, s.Config.Paths.Manifests, s.Suffix)
			if s.Unfinished != nil {
				fix = "finish what was interrupted, or take it back, first"
			}
			found = append(found, failure("Component", fix, "%s is no pod of the supervisor's: it has no manifest", name))
		}
	}
	return found
}

// expected are the pods of a control plane.
func (s Seen) expected() []string {
	names := []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	if s.Config.Etcd.Local != nil {
		return append([]string{"etcd"}, names...)
	}
	return names
}

func component(s Seen, c Component) []Finding {
	var found []Finding
	logs := fmt.Sprintf("slipway logs %s%s; slipway status %s%s has all that is known", c.Name, s.Suffix, c.Name, s.Suffix)
	fine := c.Ready || c.Ended
	if !fine {
		text := fmt.Sprintf("%s is not ready: %s", c.Name, c.State)
		if c.Why != "" {
			text += ": " + c.Why
		}
		if c.LastExit != "" {
			text += fmt.Sprintf(" (%d restarts, last exit: %s)", c.Restarts, c.LastExit)
		}
		found = append(found, Finding{Error, "Component", text, logs})
	} else if c.Restarts >= crashLoop && !c.Since.IsZero() && s.Now.Sub(c.Since) < recently {
		found = append(found, warning("Component", fmt.Sprintf("slipway logs %s --previous%s says why", c.Name, s.Suffix),
			"%s is ready, but was restarted %d times, last %s ago (%s)", c.Name, c.Restarts, s.Now.Sub(c.Since).Round(time.Second), c.LastExit))
	}
	if c.Problem != "" {
		f := warning("Manifest", fmt.Sprintf("correct it; slipway validate %s names the line", c.Manifest), "the manifest of %s is not taken, the former version runs on: %s", c.Name, c.Problem)
		if !fine {
			f.Severity, f.Message = Error, fmt.Sprintf("the manifest of %s is not taken: %s", c.Name, c.Problem)
		}
		found = append(found, f)
	}
	if c.Rejected != "" {
		found = append(found, warning("Rollback", fmt.Sprintf("correct %s; slipway status %s%s shows the end of its log", c.Manifest, c.Name, s.Suffix),
			"a newer version of %s was given up, the last good one runs: %s", c.Name, c.Rejected))
	}
	if c.NotShown != "" {
		found = append(found, warning("Mirror", "slipway events"+s.Suffix+" says since when", "%s runs, and the Kubernetes API does not show it: %s", c.Name, c.NotShown))
	}
	return found
}

func api(s Seen) []Finding {
	a := s.API
	if !a.Asked || !s.Initialized {
		return nil
	}
	logs := "slipway logs kube-apiserver" + s.Suffix
	switch {
	case a.Err != "":
		return []Finding{failure("APIServer", logs, "the API server does not answer at %s: %s", a.URL, a.Err)}
	case !a.Live:
		return []Finding{failure("APIServer", logs, "the API server at %s says that it is not alive: %s", a.URL, strings.Join(a.Failing, ", "))}
	case len(a.Failing) > 0:
		return []Finding{failure("APIServer", logs, "the API server at %s is not ready: %s", a.URL, strings.Join(a.Failing, ", "))}
	case a.Stale:
		return []Finding{warning("APIServer", "slipway restart kube-apiserver"+s.Suffix, "the API server serves another certificate than %s/apiserver.crt", s.Config.Paths.PKI)}
	}
	return nil
}

// Of etcd's database: nearly full ends all writes, and is the more urgent the nearer. Below defragFrom bytes nothing is
// worth a defragmentation, which stops etcd for a moment.
const (
	fullError   = 95 // percent of the quota
	fullWarning = 80
	defragFrom  = 256 << 20
)

func etcd(s Seen) []Finding {
	e := s.Etcd
	if e == nil || !s.Initialized {
		return nil
	}
	if e.Err != "" {
		return []Finding{failure("Etcd", "slipway logs etcd"+s.Suffix, "etcd does not answer: %s", e.Err)}
	}
	var found []Finding
	if !e.HasLeader {
		found = append(found, failure("Etcd", "see that its other members run and are reached: slipway logs etcd"+s.Suffix, "etcd has no leader: nothing can be written or read"))
	}
	if e.Quota > 0 {
		percent := e.Size * 100 / e.Quota
		f := warning("EtcdSize", "delete what is not needed and defragment it, or raise etcd.local.extraArgs: quota-backend-bytes",
			"etcd's database has %d MB, %d %% of its quota of %d MB: a full one takes no more writes", e.Size>>20, percent, e.Quota>>20)
		if percent >= fullError {
			f.Severity = Error
		}
		if percent >= fullWarning {
			found = append(found, f)
		}
	}
	if e.Size > defragFrom && e.InUse*2 < e.Size {
		found = append(found, warning("EtcdFragmentation", "defragment it in a quiet hour, with etcdctl defrag",
			"of the %d MB of etcd's database only %d MB are in use", e.Size>>20, e.InUse>>20))
	}
	return found
}

// Certificates are renewed at two thirds of their life. What is left after that is time to find out why one was not. One that
// is made for less than four times the notice is spoken of when a quarter of its life is left.
const (
	leafNotice      = 30 * 24 * time.Hour
	authorityNotice = 180 * 24 * time.Hour
)

func certificates(s Seen) []Finding {
	if !s.Initialized {
		return nil
	}
	var found []Finding
	for _, e := range s.Certificates {
		notice, fix := leafNotice, fmt.Sprintf("slipway certs renew %s%s", e.Name, s.Suffix)
		what := "certificate " + e.Path
		switch {
		case e.CA == "":
			notice, fix, what = authorityNotice, "slipway certs rotate-ca"+s.Suffix+": all that it signed ends with it", "certificate authority "+e.Path
		case e.External:
			fix = "have it signed anew by its authority, whose key is not on this machine: slipway certs generate-csr makes the request"
		}
		if e.Life > 0 {
			notice = min(notice, e.Life/4)
		}
		left := e.NotAfter.Sub(s.Now)
		switch {
		case e.Missing:
		case e.Err != nil:
			found = append(found, failure("Certificate", "bring a sound file, or remove it with its key and run slipway init"+s.Suffix, "%s", e.Err))
		case left <= 0:
			found = append(found, failure("Certificate", fix, "%s expired on %s", what, day(e.NotAfter)))
		case left < notice:
			found = append(found, warning("Certificate", fix, "%s expires on %s, in %s", what, day(e.NotAfter), days(left)))
		}
	}
	return found
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// slowFsync is what etcd's documentation wants of a disk: 99 in 100 writes durable within 10 ms.
const slowFsync = 10 * time.Millisecond

func disk(s Seen) []Finding {
	d := s.Disk
	if d == nil || s.Config.Etcd.Local == nil || d.P99 < slowFsync {
		return nil
	}
	text := fmt.Sprintf("the disk of %s takes %s to make a small write durable (99th percentile of %d), etcd wants less than %s",
		s.Config.Etcd.Local.DataDir, d.P99.Round(100*time.Microsecond), d.Samples, slowFsync)
	if !d.Enough() {
		text += "; few samples, so measure again"
	}
	return []Finding{{Warning, "DiskLatency", text, "give etcd a faster disk, or one of its own: etcd.local.dataDir"}}
}

// versions holds the components against each other, by Kubernetes' version skew policy: nothing is newer than the API
// server, and nothing more than one minor version older.
func versions(s Seen) []Finding {
	of := map[string]*version.Version{}
	for _, c := range s.Components {
		if v, err := version.ParseSemantic(c.Version); err == nil {
			of[c.Name] = v
		}
	}
	api := of["kube-apiserver"]
	if api == nil {
		return nil
	}
	var found []Finding
	for _, name := range []string{"kube-controller-manager", "kube-scheduler"} {
		switch v := of[name]; {
		case v == nil:
		case v.Minor() > api.Minor():
			found = append(found, failure("VersionSkew", "upgrade kube-apiserver first", "%s v%s is newer than kube-apiserver v%s", name, v, api))
		case v.Minor()+1 < api.Minor():
			found = append(found, failure("VersionSkew", "upgrade "+name, "%s v%s is more than one minor version older than kube-apiserver v%s", name, v, api))
		}
	}
	return found
}
