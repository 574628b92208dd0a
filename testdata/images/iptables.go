package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// extensions is where the distributions keep what iptables loads for each match and target: Debian's, then Fedora's.
var extensions = []string{"/usr/lib/*/xtables/*.so", "/usr/lib64/xtables/*.so"}

// library matches a path in what ldd prints.
var library = regexp.MustCompile(`(?m)(?:=> |^\s+)(/\S+) \(`)

// iptables returns the files of this machine's iptables, path in an image → path here: kube-proxy is a static program,
// but it calls iptables, which is not.
func iptables() (map[string]string, error) {
	program, err := exec.LookPath("iptables-nft")
	if err != nil {
		return nil, errors.New("kube-proxy's image takes iptables from this machine, which has none: install the package iptables")
	}
	if program, err = filepath.EvalSymlinks(program); err != nil {
		return nil, fmt.Errorf("finding iptables: %w", err)
	}
	files := map[string]string{}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} { // one program, which goes by its name
			files["usr/sbin/"+family+verb] = program
		}
	}
	linked := []string{program}
	for _, pattern := range extensions {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("looking for iptables' extensions: %w", err)
		}
		for _, path := range found {
			files[path[1:]] = path
		}
		linked = append(linked, found...)
	}
	for _, path := range linked {
		out, err := exec.Command("ldd", path).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("asking for the libraries of %q: %w: %s", path, err, out)
		}
		for _, match := range library.FindAllStringSubmatch(string(out), -1) {
			files[match[1][1:]] = match[1]
		}
	}
	return files, nil
}

// digest names files by where they go and what is in them.
func digest(files map[string]string) (string, error) {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		data, err := os.ReadFile(files[path])
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, path, len(data))
		h.Write(data)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}
