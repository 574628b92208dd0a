// Package flags knows which flags the control-plane programs take, by version.
package flags

import (
	"embed"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// known is a file for each program, a line for each flag with the versions that know it. The files are written from
// the programs' own flag sets by testdata/images/flags; see the target flags of the Makefile.
//
//go:embed known/*.txt
var known embed.FS

// Table is the flags of one program: by name, the minor versions that know each ("1.36"; of etcd "3.6").
type Table map[string][]string

// Of returns the table of a program such as "kube-apiserver", nil for one that is not known.
func Of(program string) Table {
	data, err := fs.ReadFile(known, "known/"+program+".txt")
	if err != nil {
		return nil
	}
	table := Table{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] != "#" {
			table[f[0]] = f[1:]
		}
	}
	return table
}

// Covers reports whether the table says anything of a minor version.
func (t Table) Covers(minor string) bool {
	for _, versions := range t {
		if slices.Contains(versions, minor) {
			return true
		}
	}
	return false
}

// Knows reports whether that version takes the flag.
func (t Table) Knows(minor, name string) bool { return slices.Contains(t[name], minor) }

// Names are the flags that a version takes, sorted.
func (t Table) Names(minor string) []string {
	names := slices.DeleteFunc(slices.Collect(maps.Keys(t)), func(name string) bool { return !t.Knows(minor, name) })
	slices.Sort(names)
	return names
}
