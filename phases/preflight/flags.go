package preflight

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/flags"
)

// etcdMinor is the minor version of every etcd that slipway installs.
const etcdMinor = "3.6"

// checkFlags refuses extraArgs that the component does not know: it would end at once, again and again. Who runs an
// image with flags of its own ignores the check.
func checkFlags(cfg *config.Cluster) []Problem {
	minor := ""
	if v, err := version.ParseSemantic(cfg.KubernetesVersion); err == nil {
		minor = fmt.Sprintf("%d.%d", v.Major(), v.Minor())
	}
	var problems []Problem
	check := func(field, program, minor string, args []config.Arg) {
		table := flags.Of(program)
		if !table.Covers(minor) {
			return
		}
		for _, a := range args {
			name, _, _ := strings.Cut(a.Name, "=")
			if table.Knows(minor, strings.ReplaceAll(name, "_", "-")) { // as the programs themselves take it
				continue
			}
			message := fmt.Sprintf("%s %q: %s of Kubernetes %s has no such flag", field, a.Name, program, minor)
			if program == "etcd" {
				message = fmt.Sprintf("%s %q: etcd %s has no such flag", field, a.Name, minor)
			}
			fix := "remove it"
			if versions := table[a.Name]; versions != nil {
				message += ", only that of " + strings.Join(versions, ", ")
			} else if near := nearest(a.Name, table.Names(minor)); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			problems = append(problems, fatal("Flag-"+program, fix, "%s", message))
		}
	}
	if cfg.Etcd.Local != nil {
		check("etcd.local.extraArgs", "etcd", etcdMinor, cfg.Etcd.Local.ExtraArgs)
	}
	check("apiServer.extraArgs", "kube-apiserver", minor, cfg.APIServer.ExtraArgs)
	check("controllerManager.extraArgs", "kube-controller-manager", minor, cfg.ControllerManager.ExtraArgs)
	check("scheduler.extraArgs", "kube-scheduler", minor, cfg.Scheduler.ExtraArgs)
	return problems
}

// nearest returns the name that is most like the given one, "" where none is near enough to be a slip of the keyboard.
func nearest(name string, names []string) string {
	best, distance := "", min(len(name)/3, 4)+1
	for _, n := range names {
		if d := levenshtein.ComputeDistance(name, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}
