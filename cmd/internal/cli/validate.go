package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// standardInput is the name of standard input in findings.
const standardInput = "<stdin>"

func newValidate(std Streams) *cobra.Command {
	var out output
	var node string
	cmd := &cobra.Command{
		Use: "validate FILE...|DIRECTORY|-", Short: "Check manifests of static pods, with line and column",
		Args: someArguments("file", "slipway validate /etc/kubernetes/manifests"),
		Long: "validate reads manifests as the supervisor does and prints one line for each finding: FILE:LINE:COLUMN: field: what is wrong.\n" +
			"A directory stands for the manifests in it, - for standard input. Several manifests are also held against each other. Nothing\n" +
			"else is looked at: it needs no root, no runtime and no network.\n\n" +
			"The exit code is 1 when a manifest would not be run. A warning is something without effect, or that not every node can do.",
		Example: "  slipway validate web.yaml\n" +
			"  slipway validate /etc/kubernetes/manifests --node-name cp-1\n" +
			"  kustomize build . | slipway validate - -o json",
		RunE: func(_ *cobra.Command, args []string) error { return runValidate(std, args, node, out) },
	}
	cmd.Flags().StringVar(&node, "node-name", "", "`NAME` of the node that shall run the pods; default: the host name")
	out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

// The severities of findings.
const (
	anError  = "error"
	aWarning = "warning"
)

// finding is one line of validate.
type finding struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"` // from 1; 0 for the file as a whole
	Column   int    `json:"column,omitempty"`
	Severity string `json:"severity"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
}

// String is the form that editors understand.
func (f finding) String() string {
	place := f.File
	if f.Line > 0 {
		place += fmt.Sprintf(":%d:%d", f.Line, f.Column)
	}
	if f.Severity == aWarning {
		place += ": warning"
	}
	return join(": ", place, f.Field, f.Message)
}

func runValidate(std Streams, args []string, node string, out output) error {
	if node == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("asking for the host name: %w", err)
		}
		node = host
	}
	v := &validation{node: strings.ToLower(node), findings: []finding{}}
	for _, arg := range args {
		v.add(std.In, arg)
	}
	v.together()
	if done, err := out.print(std.Out, v.findings, false); err != nil {
		return err
	} else if !done {
		for _, f := range v.findings {
			fmt.Fprintln(std.Out, f)
		}
		fmt.Fprintln(std.Err, v.summary())
	}
	if v.count(anError) > 0 {
		return &exit{code: 1}
	}
	return nil
}

// validation is what was found so far.
type validation struct {
	node     string
	read     int
	pods     []*manifest.StaticPod
	texts    map[string][]byte // by source
	findings []finding
}

// add checks what an argument names.
func (v *validation) add(in io.Reader, arg string) {
	if arg == "-" {
		data, err := io.ReadAll(io.LimitReader(in, manifest.MaxSize+1))
		v.manifest(standardInput, data, err)
		return
	}
	info, err := os.Stat(arg)
	if err == nil && info.IsDir() {
		v.directory(arg)
		return
	}
	data, err := readManifest(arg, info, err)
	v.manifest(arg, data, err)
	if err == nil && !manifest.IsManifestName(filepath.Base(arg)) {
		v.find(arg, manifest.FieldError{Detail: "in a directory this name is passed over; name it .yaml, .yml or .json"}, aWarning)
	}
}

// directory checks the files that a supervisor reads.
func (v *validation) directory(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		v.find(dir, manifest.FieldError{Detail: reason(err).Error()}, anError)
		return
	}
	before := v.read
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if !manifest.IsManifestName(e.Name()) || err == nil && info.IsDir() {
			continue
		}
		data, err := readManifest(path, info, err)
		v.manifest(path, data, err)
	}
	if v.read == before {
		v.find(dir, manifest.FieldError{Detail: "no manifests: a supervisor reads files named .yaml, .yml and .json"}, aWarning)
	}
}

// readManifest reads a regular file of a bounded size: opening a pipe would hang.
func readManifest(path string, info fs.FileInfo, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, manifest.MaxSize+1))
}

// manifest checks one manifest by itself.
func (v *validation) manifest(source string, data []byte, err error) {
	v.read++
	if err != nil {
		v.find(source, manifest.FieldError{Detail: reason(err).Error()}, anError)
		return
	}
	pod, found := manifest.Check(data, source, v.node)
	for _, f := range found {
		v.find(source, f, anError)
	}
	if pod == nil {
		return
	}
	if v.texts == nil {
		v.texts = map[string][]byte{}
	}
	v.texts[source] = data
	v.pods = append(v.pods, pod)
	begin := len(v.findings)
	for _, r := range refusals(pod, v.node) {
		at := manifest.FieldError{Field: r.Field, Detail: r.Reason}
		at.Line, at.Column = manifest.Locate(data, r.Field)
		severity := anError
		if r.Warn {
			severity = aWarning
		}
		v.find(source, at, severity)
	}
	slices.SortStableFunc(v.findings[begin:], func(a, b finding) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column)) })
}

// refusals are those of a node that can all that any runtime can. What fewer can, and what depends on the node's labels,
// is a warning.
func refusals(pod *manifest.StaticPod, node string) []podspec.Refusal {
	bare := podspec.Node{Name: node, EphemeralStorage: 1} // each has a disk, of a size that is not known here
	able := bare
	able.RecursiveReadOnlyMounts, able.ImageVolumes, able.SupplementalGroupsPolicy, able.StopSignals = true, true, true, true
	able.AllowedUnsafeSysctls = []string{"*"}
	found := podspec.Unsupported(pod.Pod, able)
	for i, r := range found {
		if strings.HasPrefix(r.Field, "spec.nodeSelector") || strings.HasPrefix(r.Field, "spec.affinity") {
			found[i].Warn, found[i].Reason = true, "not on a node without further labels: "+r.Reason
		}
	}
	for _, r := range podspec.Unsupported(pod.Pod, bare) {
		if !slices.ContainsFunc(found, func(f podspec.Refusal) bool { return f.Field == r.Field }) {
			found = append(found, podspec.Refusal{Field: r.Field, Reason: "not on every node: " + r.Reason, Warn: true})
		}
	}
	return found
}

// together holds the manifests against each other: no two may be of the same pod or uid.
func (v *validation) together() {
	for _, p := range manifest.Merge(manifest.Snapshot{}, manifest.Snapshot{Pods: v.pods}).Problems {
		at := manifest.FieldError{Field: "metadata.name", Detail: strings.TrimPrefix(p.Err.Error(), p.Source+": ")}
		if field, text, found := strings.Cut(at.Detail, " "); found && strings.HasPrefix(field, "metadata.") {
			at.Field, at.Detail = field, text
		}
		at.Line, at.Column = manifest.Locate(v.texts[p.Source], at.Field)
		v.find(p.Source, at, anError)
	}
}

func (v *validation) find(source string, f manifest.FieldError, severity string) {
	v.findings = append(v.findings, finding{File: source, Line: f.Line, Column: f.Column, Severity: severity, Field: f.Field, Message: f.Detail})
}

func (v *validation) count(severity string) int {
	n := 0
	for _, f := range v.findings {
		if f.Severity == severity {
			n++
		}
	}
	return n
}

func (v *validation) summary() string {
	return fmt.Sprintf("%s, %s, %s", plural(v.read, "manifest"), plural(v.count(anError), "error"), plural(v.count(aWarning), "warning"))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
