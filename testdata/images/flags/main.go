// Command flags writes which flags the control-plane programs take, for each Kubernetes version that slipway supports:
// one file per program, a line per flag with the versions that know it. It asks the flag sets in the programs' own
// modules rather than --help, which keeps silent about flags that are deprecated and still work.
//
// It needs a Go toolchain and a module proxy. A version takes minutes the first time.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// releases are the versions of Kubernetes that are asked, newest last, with their minor version in the table.
var releases = []struct{ minor, version string }{{"1.34", "v1.34.4"}, {"1.35", "v1.35.4"}, {"1.36", "v1.36.3"}}

// etcdRelease is the only minor version of etcd that the releases above run.
var etcdRelease = struct{ minor, version string }{"3.6", "v3.6.8"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := flag.String("out", "", "directory of the table")
	only := flag.String("only", "", "ask only this `VERSION`, such as 1.36 or etcd, and keep what the table says of the others")
	flag.Parse()
	if err := run(ctx, *out, *only); err != nil {
		fmt.Fprintln(os.Stderr, "flags:", err)
		os.Exit(1)
	}
}

// table is program → flag → versions.
type table map[string]map[string][]string

// set says that these are all the flags that a version of the program takes.
func (t table) set(program, minor string, names []string) {
	if t[program] == nil {
		t[program] = map[string][]string{}
	}
	for name, versions := range t[program] {
		t[program][name] = slices.DeleteFunc(versions, func(v string) bool { return v == minor })
	}
	for _, name := range names {
		t[program][name] = append(t[program][name], minor)
		slices.Sort(t[program][name])
	}
}

// load reads what an earlier run wrote.
func (t table) load(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		flags := map[string][]string{}
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] != "#" {
				flags[f[0]] = f[1:]
			}
		}
		t[strings.TrimSuffix(filepath.Base(path), ".txt")] = flags
	}
	return nil
}

func (t table) write(dir string) error {
	for program, flags := range t {
		var b bytes.Buffer
		fmt.Fprintf(&b, "# Flags of %s and the versions that know them; written by make flags.\n", program)
		for _, name := range slices.Sorted(maps.Keys(flags)) {
			if len(flags[name]) > 0 {
				fmt.Fprintln(&b, name, strings.Join(flags[name], " "))
			}
		}
		if err := os.WriteFile(filepath.Join(dir, program+".txt"), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func run(ctx context.Context, out, only string) error {
	if out == "" {
		return fmt.Errorf("nothing to do: set -out")
	}
	known := table{}
	if only != "" {
		if err := known.load(out); err != nil {
			return err
		}
	}
	for _, r := range releases {
		if only != "" && only != r.minor {
			continue
		}
		if err := askKubernetes(ctx, known, r.minor, r.version); err != nil {
			return fmt.Errorf("asking Kubernetes %s: %w", r.version, err)
		}
	}
	if only == "" || only == "etcd" {
		if err := askEtcd(ctx, known); err != nil {
			return fmt.Errorf("asking etcd %s: %w", etcdRelease.version, err)
		}
	}
	return known.write(out)
}

// kubernetesProgram prints the flags of the program that its argument names, as JSON. The program's command is built, not
// run. One process builds one: two change the same feature gates, which 1.34 answers with a panic.
const kubernetesProgram = `package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	_ "k8s.io/component-base/logs/json/register" // as the programs' main packages: it brings flags
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	command := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": manager.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	}[os.Args[1]]
	var names []string
	command().Flags().VisitAll(func(f *pflag.Flag) { names = append(names, strings.ReplaceAll(f.Name, "_", "-")) })
	json.NewEncoder(os.Stdout).Encode(names)
}
`

var staging = regexp.MustCompile(`(?m)^\s*(?:require )?(k8s\.io/\S+) v0\.0\.0$`)

func askKubernetes(ctx context.Context, known table, minor, version string) error {
	mod, err := goMod(ctx, "k8s.io/kubernetes@"+version)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "module flags\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes %s\n\nreplace (\n", version)
	seen := map[string]bool{}
	for _, m := range staging.FindAllSubmatch(mod, -1) {
		if name := string(m[1]); !seen[name] {
			seen[name] = true
			fmt.Fprintf(&text, "\t%[1]s => %[1]s v0%[2]s\n", name, strings.TrimPrefix(version, "v1"))
		}
	}
	text.WriteString(")\n")
	program, done, err := build(ctx, text.Bytes(), kubernetesProgram)
	if err != nil {
		return err
	}
	defer done()
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		answer, err := command(ctx, "", program, name)
		if err != nil {
			return err
		}
		var names []string
		if err := json.Unmarshal(answer, &names); err != nil {
			return fmt.Errorf("reading the flags of %s: %w", name, err)
		}
		known.set(name, minor, names)
	}
	return nil
}

// etcdProgram prints the flags of etcd's configuration. Those that only its main knows are in its help.
const etcdProgram = `package main

import (
	"encoding/json"
	"flag"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	if len(os.Args) > 1 {
		os.Stderr = os.Stdout // half of the help goes there
		etcdmain.Main(os.Args)
		return
	}
	var names []string
	fs := flag.NewFlagSet("etcd", flag.ContinueOnError)
	embed.NewConfig().AddFlags(fs)
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	json.NewEncoder(os.Stdout).Encode(names)
}
`

var helpFlag = regexp.MustCompile(`(?m)^\s+(?:etcd |-[a-z], )?--([a-z0-9-]+)`)

func askEtcd(ctx context.Context, known table) error {
	mod := fmt.Sprintf("module flags\n\ngo 1.24.0\n\nrequire go.etcd.io/etcd/server/v3 %s\n", etcdRelease.version)
	program, done, err := build(ctx, []byte(mod), etcdProgram)
	if err != nil {
		return err
	}
	defer done()
	answer, err := command(ctx, "", program)
	if err != nil {
		return err
	}
	var names []string
	if err := json.Unmarshal(answer, &names); err != nil {
		return fmt.Errorf("reading the flags: %w", err)
	}
	help, err := command(ctx, "", program, "--help")
	if err != nil {
		return err
	}
	for _, m := range helpFlag.FindAllSubmatch(help, -1) {
		names = append(names, string(m[1]))
	}
	slices.Sort(names)
	known.set("etcd", etcdRelease.minor, slices.Compact(names))
	return nil
}

// goMod returns the go.mod of a module.
func goMod(ctx context.Context, module string) ([]byte, error) {
	out, err := command(ctx, "", "go", "mod", "download", "-json", module)
	if err != nil {
		return nil, err
	}
	var at struct{ GoMod string }
	if err := json.Unmarshal(out, &at); err != nil {
		return nil, err
	}
	return os.ReadFile(at.GoMod)
}

// build builds a program in a module of its own and returns its path, and what removes it. The flags of the build are those
// of the images', so that they share what is compiled.
func build(ctx context.Context, mod []byte, source string) (program string, done func(), err error) {
	dir, err := os.MkdirTemp("", "slipway-flags-")
	if err != nil {
		return "", nil, err
	}
	done = func() { os.RemoveAll(dir) } //nolint:errcheck // a directory of the system's temporary ones
	defer func() {
		if err != nil {
			done()
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), mod, 0o644); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
		return "", nil, err
	}
	if _, err := command(ctx, dir, "go", "build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", "flags", "."); err != nil {
		return "", nil, err
	}
	return filepath.Join(dir, "flags"), done, nil
}

func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out, nil
}
