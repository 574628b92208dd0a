package supervisor

import (
	"embed"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

//go:embed units/*.tmpl
var units embed.FS

// oomScore keeps both programs alive as long as any pod: the kubelet's own value.
const oomScore = -999

// unitValues is what the templates take.
type unitValues struct {
	Command     string
	Environment []string // "NAME=value", quoted
	Runtime     string   // unit name of slipway's own containerd, or ""
	OOMScore    int      // 0 leaves it alone
}

func writeConfig(env *phases.Env, d Deps) error {
	files, err := configFiles(env.Config, d)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := env.Files.Put(f); err != nil {
			return err
		}
	}
	return nil
}

// configFiles returns containerd's configuration unless the user brings a runtime, and the units where there is systemd.
func configFiles(cfg *config.Cluster, d Deps) ([]artifact.File, error) {
	own := cfg.CRISocket == ""
	var files []artifact.File
	if own {
		data, err := d.ContainerdConfig(cfg)
		if err != nil {
			return nil, fmt.Errorf("rendering containerd's configuration: %w", err)
		}
		files = append(files, artifact.File{Path: cfg.Paths.ContainerdConfig, Data: data, Mode: 0o600})
	}
	if !cfg.Facts.Systemd {
		return files, nil
	}
	values := unitValues{}
	if !cfg.Facts.RestrictOOMScore {
		values.OOMScore = oomScore
	}
	if own {
		values.Command = command(host.ContainerdArgv(d.containerd(), cfg.Paths))
		values.Environment = environment(cfg.Facts.ProxyEnv) // containerd is who pulls for the supervisor
		unit, err := renderUnit("containerd.service.tmpl", filepath.Join(cfg.Paths.Units, cfg.Paths.ContainerdUnit), values)
		if err != nil {
			return nil, err
		}
		files = append(files, unit)
		values.Runtime, values.Environment = cfg.Paths.ContainerdUnit, nil
	}
	values.Command = command(host.SuperviseArgv(cfg.Facts.Executable, supervisor(cfg)))
	unit, err := renderUnit("slipway.service.tmpl", filepath.Join(cfg.Paths.Units, cfg.Paths.SupervisorUnit), values)
	if err != nil {
		return nil, err
	}
	return append(files, unit), nil
}

func renderUnit(name, path string, values unitValues) (artifact.File, error) {
	t, err := template.ParseFS(units, "units/"+name)
	if err != nil {
		return artifact.File{}, fmt.Errorf("parsing %s: %w", name, err)
	}
	var b strings.Builder
	if err := t.Execute(&b, values); err != nil {
		return artifact.File{}, fmt.Errorf("rendering %s: %w", name, err)
	}
	file := artifact.File{Path: path, Data: []byte(b.String()), Mode: 0o644}
	if len(values.Environment) > 0 {
		file.Mode, file.Secret = 0o600, true // a proxy's address may hold a password
	}
	return file, nil
}

func environment(variables map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		list = append(list, quote(name+"="+variables[name]))
	}
	return list
}

// quote keeps systemd from expanding "%" and from reading quotes and backslashes.
func quote(text string) string {
	return strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(text)
}

// command returns a command line for ExecStart.
func command(argv []string) string {
	quoted := make([]string, len(argv))
	for i, arg := range argv {
		arg = quote(arg)
		if i > 0 { // variables are not looked for in the program's path
			arg = strings.ReplaceAll(arg, "$", "$$")
		}
		if strings.ContainsAny(arg, " \t'\"") || arg == "" {
			arg = `"` + arg + `"`
		}
		quoted[i] = arg
	}
	return strings.Join(quoted, " ")
}

// containerd returns the path of the program, or where packages put it.
func (d Deps) containerd() string {
	if path, err := d.LookPath("containerd"); err == nil && filepath.IsAbs(path) {
		return path
	}
	return "/usr/bin/containerd"
}
