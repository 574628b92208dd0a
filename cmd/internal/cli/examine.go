package cli

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/doctor"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/preflight"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// What doctor waits for, in all: first for the files that say what runs here, then for all else at once.
const (
	filesBound = 3 * time.Second
	looksBound = 6 * time.Second
	fsyncProbe = 2 * time.Second
)

// look is one thing that doctor looks at. do returns how to note what it saw: that is done by who collects, so that no
// two write at once.
type look struct {
	noun string // for messages, when it does not return
	do   func(context.Context) func(*doctor.Seen)
}

// collect runs the looks side by side and notes what they saw. Who does not return in time is left behind: a call that
// hangs in the kernel, as on a dead disk, cannot be ended, and the program is about to.
func collect(ctx context.Context, bound time.Duration, seen *doctor.Seen, looks []look) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	type answer struct {
		index int
		note  func(*doctor.Seen)
	}
	answers := make(chan answer, len(looks))
	for i, l := range looks {
		go func() { answers <- answer{i, l.do(ctx)} }()
	}
	late := time.NewTimer(bound + 250*time.Millisecond) // who heeds ctx may still say so
	defer late.Stop()
	returned := make([]bool, len(looks))
	for range looks {
		select {
		case a := <-answers:
			returned[a.index] = true
			a.note(seen)
			continue
		case <-late.C:
		}
		break
	}
	for i, l := range looks {
		if !returned[i] {
			seen.Unanswered = append(seen.Unanswered, l.noun)
		}
	}
}

// examine looks at the node, and returns the kernel's version beside. An error is one of the flags or of their file.
func examine(ctx context.Context, std Streams, g *global, f *configFlags) (doctor.Seen, string, error) {
	seen := doctor.Seen{Now: g.now(), Suffix: g.suffix()}
	var failed error
	node := nodeFiles{paths: g.paths()}
	seen.Unread = true
	collect(ctx, filesBound, &seen, []look{{"the files of the control plane", func(context.Context) func(*doctor.Seen) {
		cluster, err := f.load(Streams{In: std.In, Out: std.Out, Err: io.Discard, Environ: std.Environ}, g)
		found, begun := readNode(g.paths()), interruptedChange(artifact.Disk{}, g.paths(), g.suffix())
		return func(*doctor.Seen) {
			seen.Unread, seen.Config, failed, node, seen.Unfinished = false, cluster, err, found, begun
		}
	}}})
	described := f.file != "" || f.factsFile != "" // all of it, not by single flags
	if failed != nil && (described || !node.initialized()) {
		return seen, "", failed
	}
	if seen.Config == nil { // flags that are not needed to look at what runs, or files that hang
		seen.Config = &config.Cluster{Paths: g.paths(), Instance: g.instance, BindPort: 6443, KubernetesVersion: config.DefaultKubernetesVersion,
			Etcd: config.Etcd{Local: &config.LocalEtcd{DataDir: g.paths().EtcdData}}}
	}
	seen.Initialized, seen.Systemd = node.initialized(), exists("/run/systemd/system")
	if seen.Unread { // its socket is in memory, not on the disk that hangs
		seen.Initialized, seen.Unanswered = exists(g.paths().SupervisorSocket), nil
		seen.Config.Etcd = config.Etcd{} // no pod of etcd is missed: it may be an external one
	}
	if seen.Initialized && !described {
		seen.Config = override(doctor.Running(*seen.Config, node.manifests), seen.Config, f.flags.Changed)
	}
	kernel := ""
	collect(ctx, looksBound, &seen, g.looks(seen, node, &kernel))
	return seen, kernel, nil
}

// interruptedChange is what init would refuse to run beside, in doctor's words; nil while a change is being made.
func interruptedChange(files artifact.Store, paths config.Paths, suffix string) *doctor.Unfinished {
	if ledger.Holder("", paths.InitLock) != 0 {
		return nil
	}
	err := unfinished(files, paths, nil, suffix)
	if err == nil || errors.Is(err, fs.ErrPermission) { // who may not look is told of it by others
		return nil
	}
	u := &doctor.Unfinished{What: err.Error()}
	if h := (*hinted)(nil); errors.As(err, &h) {
		u.Next = strings.ReplaceAll(h.hint, "\n", "; ")
	}
	return u
}

// override puts what flags say in the place of what the manifests say. flags is the cluster as the flags describe it, and
// given tells which of them were set.
func override(runs, flags *config.Cluster, given func(flag string) bool) *config.Cluster {
	c := *runs
	for flag, take := range map[string]func(){
		"apiserver-advertise-address": func() { c.AdvertiseAddress = flags.AdvertiseAddress },
		"apiserver-bind-port":         func() { c.BindPort = flags.BindPort },
		"node-name":                   func() { c.NodeName = flags.NodeName },
		"pod-network-cidr":            func() { c.PodSubnets = flags.PodSubnets },
		"service-cidr":                func() { c.ServiceSubnets = flags.ServiceSubnets },
		"kubernetes-version":          func() { c.KubernetesVersion = flags.KubernetesVersion },
		"cert-dir":                    func() { c.Paths.PKI = flags.Paths.PKI },
	} {
		if given(flag) {
			take()
		}
	}
	return &c
}

// nodeFiles is what the files say of this node before anything is asked.
type nodeFiles struct {
	paths     config.Paths
	entries   []ledger.Entry
	manifests map[string][]byte // by component
}

func readNode(p config.Paths) nodeFiles {
	n := nodeFiles{paths: p, manifests: map[string][]byte{}}
	n.entries, _ = ledger.Load("", p.Ledger) // a damaged one is reset's to tell
	for _, name := range restartOrder {
		if data, err := os.ReadFile(filepath.Join(p.Manifests, name+".yaml")); err == nil {
			n.manifests[name] = data
		}
	}
	return n
}

// initialized reports whether there is a control plane here, or the rest of one.
func (n nodeFiles) initialized() bool {
	return len(n.manifests) > 0 || ledger.Owned(n.entries, n.paths.KubeletConfig)
}

// owned answers what slipway made, and is told of nothing: doctor starts nothing.
type owned []ledger.Entry

var errReadOnly = errors.New("nothing is recorded by who only looks")

func (owned) Process(host.Process) error { return errReadOnly }
func (owned) Unit(string) error          { return errReadOnly }
func (owned) Tree(string) error          { return errReadOnly }
func (o owned) Owns(path string) bool    { return ledger.Owned(o, path) }

// looks are what doctor looks at, beside the files that say what runs.
func (g *global) looks(s doctor.Seen, node nodeFiles, kernel *string) []look {
	cluster := s.Config
	if s.Unread {
		return g.looksWithoutFiles(s)
	}
	looks := []look{
		{"the machine", func(ctx context.Context) func(*doctor.Seen) { return inspectMachine(ctx, s, node, kernel) }},
		{"certificates and kubeconfigs", func(context.Context) func(*doctor.Seen) {
			damaged := preflight.Ignore(preflight.Certificates(artifact.NewOverlay(artifact.Disk{}), cluster, s.Now), cluster.IgnorePreflightErrors)
			expiries := pki.Expirations(os.ReadFile, cluster.Paths)
			return func(seen *doctor.Seen) { seen.Files, seen.Certificates = damaged, expiries }
		}},
	}
	if cluster.Etcd.Local != nil {
		looks = append(looks, look{"the disk of " + cluster.Etcd.Local.DataDir, func(ctx context.Context) func(*doctor.Seen) {
			ctx, cancel := context.WithTimeout(ctx, fsyncProbe)
			defer cancel()
			l, err := host.FsyncLatency(ctx, cluster.Etcd.Local.DataDir)
			return func(seen *doctor.Seen) {
				if err == nil && l.Samples > 0 {
					seen.Disk = &l
				}
			}
		}})
	}
	if !s.Initialized {
		return looks
	}
	looks = append(looks,
		look{"the supervisor", g.askSupervisor},
		look{"the container runtime", func(ctx context.Context) func(*doctor.Seen) { return g.askRuntime(ctx) }},
		look{"the API server", func(ctx context.Context) func(*doctor.Seen) { return askAPI(ctx, cluster) }},
	)
	if cluster.Etcd.Local != nil {
		looks = append(looks, look{"etcd", func(ctx context.Context) func(*doctor.Seen) { return askEtcd(ctx, cluster) }})
	}
	return looks
}

// looksWithoutFiles are those that still mean something when the files of the control plane cannot be read.
func (g *global) looksWithoutFiles(s doctor.Seen) []look {
	if !s.Initialized {
		return nil
	}
	return []look{
		{"the supervisor", g.askSupervisor},
		{"the container runtime", func(ctx context.Context) func(*doctor.Seen) { return g.askRuntime(ctx) }},
	}
}

func inspectMachine(ctx context.Context, s doctor.Seen, node nodeFiles, kernel *string) func(*doctor.Seen) {
	live := host.NewLive(host.Options{Paths: s.Config.Paths, Facts: s.Config.Facts, Files: artifact.Disk{}, Ledger: owned(node.entries), Images: imageStore{}})
	check, question := preflight.Check, preflight.Question(s.Config)
	if s.Initialized {
		check, question = preflight.Standing, preflight.StandingQuestion(s.Config)
	}
	inspection, err := live.Inspect(ctx, question)
	return func(seen *doctor.Seen) {
		if err != nil {
			seen.Unanswered = append(seen.Unanswered, fmt.Sprintf("the machine (%v)", err))
			return
		}
		*kernel = inspection.Kernel
		seen.Machine = preflight.Ignore(check(s.Config, inspection), s.Config.IgnorePreflightErrors)
	}
}

// askSupervisor asks for the components.
func (g *global) askSupervisor(ctx context.Context) func(*doctor.Seen) {
	client := g.supervisor()
	list, err := client.pods(ctx)
	var details []status.Detail
	var problems []status.Problem
	if err == nil {
		details, err = client.details(ctx, "")
	}
	if err == nil {
		problems, err = client.problems(ctx)
	}
	if err == nil {
		var resp *http.Response
		if resp, err = client.request(ctx, http.MethodGet, "/healthz"); err == nil {
			resp.Body.Close()
		}
	}
	return func(seen *doctor.Seen) {
		if err != nil {
			seen.Supervisor.Err = err.Error()
			return
		}
		seen.Components, seen.Refused = patients(list, details, problems)
	}
}

// patients are the supervisor's pods in doctor's words, and the manifests that belong to none.
func patients(list *corev1.PodList, details []status.Detail, problems []status.Problem) ([]doctor.Component, []doctor.Refusal) {
	var components []doctor.Component
	known := map[string]bool{}
	for i, c := range componentsOf(list, details) {
		pod := &list.Items[i]
		known[c.full()] = true
		components = append(components, doctor.Component{
			Name: strings.TrimSuffix(c.Name, "-"+pod.Spec.NodeName), Ready: c.Ready, Ended: c.ended, State: c.State, Why: c.Why, Restarts: int(c.Restarts),
			Since: c.Since, LastExit: c.LastExit, Manifest: c.Manifest, Problem: c.Problem, Rejected: c.Rejected, NotShown: c.NotShown, Version: doctor.Version(pod),
		})
	}
	var refused []doctor.Refusal
	for _, p := range problems {
		if !known[p.Pod] {
			refused = append(refused, doctor.Refusal{Source: p.Source, Reason: strings.TrimPrefix(p.Reason, p.Source+": ")})
		}
	}
	return components, refused
}

// runtimeBound is for the runtime's version; one that is stopped takes the connection and answers nothing.
const runtimeBound = 3 * time.Second

// askRuntime asks the runtime for its version.
func (g *global) askRuntime(ctx context.Context) func(*doctor.Seen) {
	ctx, cancel := context.WithTimeout(ctx, runtimeBound)
	defer cancel()
	socket := g.places(ctx).Runtime
	r := doctor.Runtime{Socket: socket, Own: socket == g.paths().ContainerdSocket}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket) // a gRPC client would try for long
	if err == nil {
		conn.Close()
		r.Name, r.Version, err = imageStore{}.Version(ctx, socket)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		r.Err = fmt.Sprintf("no answer within %s", runtimeBound)
	case err != nil:
		r.Err = reasonOfDial(err)
	}
	return func(seen *doctor.Seen) { seen.Runtime = r }
}

// reasonOfDial is the cause without the address, which the message names.
func reasonOfDial(err error) string {
	if failed := (*net.OpError)(nil); errors.As(err, &failed) {
		return failed.Err.Error()
	}
	return err.Error()
}

// apiBound is for each question to the API server; it answers within milliseconds.
const apiBound = 4 * time.Second

// askAPI asks the API server of this node for its health, as the administrator and by this node's authority.
func askAPI(ctx context.Context, c *config.Cluster) func(*doctor.Seen) {
	ctx, cancel := context.WithTimeout(ctx, apiBound)
	defer cancel()
	address := net.JoinHostPort(c.AdvertiseAddress.String(), strconv.Itoa(int(c.BindPort)))
	a := doctor.API{Asked: true, URL: "https://" + address}
	settings, err := apiTLS(c)
	if err != nil {
		a.Err = err.Error()
		return func(seen *doctor.Seen) { seen.API = a }
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}}
	live, served, err := askHealth(ctx, client, a.URL+"/livez?verbose")
	if err != nil {
		a.Err = err.Error()
		return func(seen *doctor.Seen) { seen.API = a }
	}
	a.Live, a.Failing = live == nil, live
	if a.Live {
		if a.Failing, _, err = askHealth(ctx, client, a.URL+"/readyz?verbose"); err != nil {
			a.Err = err.Error()
		}
	}
	if disk, err := os.ReadFile(filepath.Join(c.Paths.PKI, "apiserver.crt")); err == nil && served != nil {
		block, _ := pem.Decode(disk)
		a.Stale = block != nil && !slices.Equal(block.Bytes, served.Raw)
	}
	return func(seen *doctor.Seen) { seen.API = a }
}

// apiTLS trusts this node's authority, and shows super-admin.conf's certificate, or admin.conf's, if there is one: health
// is told to anyone unless anonymous requests are forbidden.
func apiTLS(c *config.Cluster) (*tls.Config, error) {
	path := filepath.Join(c.Paths.PKI, "ca.crt")
	ca, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("its authority cannot be read: %w", err)
	}
	settings := &tls.Config{RootCAs: x509.NewCertPool()}
	if !settings.RootCAs.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("its authority %s holds no certificate", path)
	}
	for _, name := range []string{"super-admin.conf", "admin.conf"} {
		data, err := os.ReadFile(c.Paths.Kubeconfig(name))
		if err != nil {
			continue
		}
		_, user, err := document.Load(data, c.Paths.Kubernetes, os.ReadFile)
		if err != nil {
			continue
		}
		if pair, err := tls.X509KeyPair(user.User.ClientCertificateData, user.User.ClientKeyData); err == nil {
			settings.Certificates = []tls.Certificate{pair}
			break
		}
	}
	return settings, nil
}

// askHealth returns the checks that fail, nil when all is well, and the certificate that was shown.
func askHealth(ctx context.Context, client *http.Client, at string) ([]string, *x509.Certificate, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, unasked(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, nil, fmt.Errorf("reading its answer: %w", err)
	}
	var shown *x509.Certificate
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		shown = resp.TLS.PeerCertificates[0]
	}
	if resp.StatusCode == http.StatusOK {
		return nil, shown, nil
	}
	var failing []string
	for line := range strings.Lines(string(body)) {
		if check, found := strings.CutPrefix(strings.TrimSpace(line), "[-]"); found {
			name, _, _ := strings.Cut(check, " ")
			failing = append(failing, name)
		}
	}
	if failing == nil {
		failing = []string{resp.Status}
	}
	return failing, shown, nil
}

// unasked is why a request had no answer, without its address.
func unasked(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer within %s", apiBound)
	}
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	return err
}

// askEtcd reads etcd's figures from its metrics, which it serves to this machine without a certificate.
func askEtcd(ctx context.Context, c *config.Cluster) func(*doctor.Seen) {
	ctx, cancel := context.WithTimeout(ctx, apiBound)
	defer cancel()
	at := "http://127.0.0.1:2381"
	for _, a := range c.Etcd.Local.ExtraArgs {
		if a.Name == "listen-metrics-urls" {
			at, _, _ = strings.Cut(a.Value, ",")
		}
	}
	e, err := etcdHealth(ctx, at)
	if err != nil {
		e = doctor.Etcd{Err: err.Error()}
	}
	return func(seen *doctor.Seen) {
		if strings.HasPrefix(at, "http://") { // with TLS it is for others to ask
			seen.Etcd = &e
		}
	}
}

func etcdHealth(ctx context.Context, at string) (doctor.Etcd, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(at, "/")+"/metrics", nil)
	if err != nil {
		return doctor.Etcd{}, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is this machine
	resp, err := client.Do(req)
	if err != nil {
		return doctor.Etcd{}, fmt.Errorf("at %s: %w", at, unasked(ctx, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return doctor.Etcd{}, fmt.Errorf("it answers %s at %s", resp.Status, at)
	}
	return etcdFiguresOf(io.LimitReader(resp.Body, 4<<20))
}

// etcdFiguresOf picks four values out of etcd's metrics.
func etcdFiguresOf(metrics io.Reader) (doctor.Etcd, error) {
	values := map[string]float64{}
	for lines := bufio.NewScanner(metrics); lines.Scan(); {
		name, value, found := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseFloat(value, 64); found && err == nil {
			values[name] = n
		}
	}
	if _, told := values["etcd_server_has_leader"]; !told {
		return doctor.Etcd{}, errors.New("its metrics are not those of etcd")
	}
	return doctor.Etcd{
		Size: int64(values["etcd_mvcc_db_total_size_in_bytes"]), InUse: int64(values["etcd_mvcc_db_total_size_in_use_in_bytes"]),
		Quota: int64(cmp.Or(values["etcd_server_quota_backend_bytes"], 0)), HasLeader: values["etcd_server_has_leader"] == 1,
	}, nil
}
