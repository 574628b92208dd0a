package imports

import (
	"slices"
	"strings"
	"testing"
)

// rule forbids imports. Patterns are as the go command's: "./" begins a package of slipway, "/..." at the end stands for
// all below as well.
type rule struct {
	name  string
	from  []string // who
	free  []string // who of those may
	never []string // may not import these
	deep  bool     // nor import something that does
	why   string
}

// rules are those of docs/architecture.md.
var rules = []rule{
	{
		name: "templates and kubeletconfig stand alone", from: []string{"./templates", "./kubeletconfig"},
		never: []string{"./phases/...", "./runtime/...", "./cmd/...", "./templates/...", "./kubeletconfig/..."},
		why:   "what renders a manifest must be usable, and testable, without the rest of slipway: pass it values",
	},
	{
		name: "rendering needs nothing of the machine",
		from: []string{"./templates", "./kubeletconfig", "./phases", "./phases/config", "./phases/patch", "./phases/staticpod", "./phases/etcd",
			"./phases/controlplane", "./phases/kubelet", "./phases/kubeconfig/...", "./phases/pki", "./phases/renewal", "./phases/preflight", "./phases/supervisor", "./phases/wait", "./phases/apply",
			"./phases/objects", "./phases/clusteradmins", "./phases/uploadconfig", "./phases/uploadcerts", "./phases/markcontrolplane", "./phases/bootstraptoken",
			"./phases/addon", "./phases/joincommand", "./phases/plane", "./phases/backup", "./phases/nodes"},
		never: []string{"os", "os/exec", "syscall", "net/http", "golang.org/x/sys/unix"},
		why:   "the same input gives the same bytes on any machine: read through Env.Files, act through Env.Host, take facts from config.HostFacts",
	},
	{
		name: "the wire to the API server stays in one package", from: []string{"./..."}, free: []string{"./phases/kubeapi"},
		never: []string{"k8s.io/client-go/..."},
		why:   "phases ask for what they need through Env.API, so that --dry-run tells it and tests need no cluster; the supervisor is to stay small",
	},
	{
		name: "runtime knows no phases", from: []string{"./runtime/..."},
		never: []string{"./phases/...", "./templates", "./kubeletconfig", "./cmd/..."},
		why:   "the files on disk are the contract: the supervisor runs manifests from anyone. Package cmd/internal/cli wires the two",
	},
	{
		name: "phases know no runtime", from: []string{"./phases/..."},
		never: []string{"./runtime/...", "./cmd/..."},
		why:   "the files on disk are the contract: what a phase needs of the runtime it asks for through host.Host. Package cmd/internal/cli wires the two",
	},
	{
		name: "the command line stays in cmd", from: []string{"./..."}, free: []string{"./cmd/..."},
		never: []string{"github.com/spf13/cobra/...", "github.com/spf13/viper/...", "github.com/spf13/pflag"},
		why:   "flags and variables end in cmd: viper lower-cases map keys, which corrupts feature gates and extraArgs. Pass a struct",
	},
	{
		name: "the wire to the runtime and to etcd stays in five packages", from: []string{"./..."},
		// cmd/internal/cli hands reset the pods of a runtime, and has to name CRI's types for that.
		free: []string{"./runtime/cri/...", "./runtime/podspec", "./runtime/supervisor", "./runtime/containerd", "./runtime/etcd", "./cmd/internal/cli"},
		never: []string{"google.golang.org/grpc/...", "github.com/containerd/containerd/v2/...", "github.com/containerd/containerd/api/...",
			"k8s.io/cri-api/..."},
		why: "the rest decides on values of our own, and is tested without a runtime",
	},
	{
		name: "etcd's file format stays in one package", from: []string{"./..."}, free: []string{"./runtime/etcd/snapshot"},
		never: []string{"go.etcd.io/..."},
		why:   "a database is read where its snapshots are verified; the rest takes what runtime/etcd/snapshot says of it",
	},
	{
		name: "gRPC is not behind a detour either", from: []string{"./phases/...", "./templates", "./kubeletconfig", "./runtime/lifecycle", "./runtime/manifest", "./runtime/probe", "./runtime/status"},
		never: []string{"google.golang.org/grpc/...", "github.com/containerd/containerd/v2/...", "k8s.io/cri-api/..."}, deep: true,
		why: "a pure package that drags in the wire is tested, built and reviewed with it",
	},
	{
		name: "the brain is pure", from: []string{"./runtime/lifecycle", "./runtime/podspec"},
		never: []string{"os", "os/exec", "net/http", "sync", "context", "syscall", "golang.org/x/sys/unix"},
		why:   "Decide and the conversion to CRI take all they need as arguments: time, observations, the node",
	},
}

func TestImports(t *testing.T) {
	m := load(t)
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			m.requireNames(t, slices.Concat(r.from, r.free, r.never)...)
			for _, p := range m.ours {
				if !r.covers(p) {
					continue
				}
				imports := p.Imports
				if r.deep {
					imports = p.Deps
				}
				for _, path := range imports {
					if matchAny(r.never, path) {
						t.Errorf("%s imports %s.\nRule: %s.\nReason: %s.", p.short(), strings.TrimPrefix(path, module+"/"), r.name, r.why)
					}
				}
			}
		})
	}
}

func (r rule) covers(p pkg) bool {
	return matchAny(r.from, p.ImportPath) && !matchAny(r.free, p.ImportPath)
}

func TestPackageNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "constants", "lib"}
	for _, p := range load(t).ours {
		for element := range strings.SplitSeq(p.short(), "/") {
			if slices.Contains(vague, element) {
				t.Errorf("%s: %q says nothing of what is in it; put each thing with the noun that it serves", p.short(), element)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range load(t).ours {
		name := p.short()[strings.LastIndexByte(p.short(), '/')+1:]
		if !strings.HasPrefix(p.Doc, "Package "+name+" ") && !strings.HasPrefix(p.Doc, "Command "+name+" ") {
			t.Errorf("%s: wanted a package comment that begins with \"Package %s\" or \"Command %s\", found %q", p.short(), name, name, p.Doc)
		}
	}
}
