package config

import (
	"maps"
	"slices"
)

// ParseFacts reads host facts that a user supplies to render for another machine, YAML or JSON, strictly. Facts that
// the file leaves out are as on a machine that has none of them, the cgroup driver "systemd".
func ParseFacts(file string, data []byte) (HostFacts, error) {
	r := newReport(file)
	facts := HostFacts{CgroupDriver: "systemd"}
	roots, serr := parseYAML(data)
	switch {
	case serr != nil:
		r.fileProblem(serr.line, "%s", serr.reason)
	case len(roots) != 1:
		r.fileProblem(0, "wanted one document of host facts, found %d", len(roots))
	default:
		d := &decoder{report: r}
		d.decode(roots[0], "", &facts)
	}
	if facts.CgroupDriver != "systemd" && facts.CgroupDriver != "cgroupfs" {
		r.problemf("cgroupDriver", `%q: wanted "systemd" or "cgroupfs"`, facts.CgroupDriver)
	}
	for i, dir := range facts.CADirs {
		r.absolute(element("caDirs", i), dir)
	}
	for i, a := range facts.DefaultAddresses {
		if !a.IsValid() || !a.IsGlobalUnicast() {
			r.problemf(element("defaultAddresses", i), "%q is not an address that other hosts can reach", a)
		}
	}
	r.absolute("resolvConf", facts.ResolvConf)
	r.absolute("executable", facts.Executable)
	if err := r.err(); err != nil {
		return HostFacts{}, err
	}
	return facts, nil
}

// clone returns facts that share nothing with f.
func (f HostFacts) clone() HostFacts {
	f.DefaultAddresses = slices.Clone(f.DefaultAddresses)
	f.CADirs = slices.Clone(f.CADirs)
	f.ProxyEnv = maps.Clone(f.ProxyEnv)
	return f
}
