package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/doctor"
)

// doctorFlags are those of doctor.
type doctorFlags struct {
	config configFlags
	out    output
}

func newDoctor(std Streams, g *global) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use: "doctor", Short: "Say what is wrong with this node, and what to do", Args: noArguments,
		Long: "doctor looks at this node and lists what is wrong, worst first, each with what to do: the supervisor and its components, the API\n" +
			"server, containerd, etcd and its disk, certificates, files, ports, networks, the clock, versions. Where there is no control\n" +
			"plane yet it says what init would refuse. What matters only to a kubelet is a note.\n\n" +
			"It changes nothing, and needs no API server, no supervisor and no containerd. Each look has a bound of its own: the whole takes\n" +
			"3 seconds, 2 of them to measure the disk, and never more than 10. What runs is told by its manifests; --config and the other\n" +
			"flags say what shall run instead: --config all of it, each other flag what it names.\n\n" +
			"The exit code is 0 when all is well, 2 when there are only warnings, 3 when there are errors, and 1 when doctor itself fails.",
		Example: "  slipway doctor\n" +
			"  slipway doctor -o json\n" +
			"  slipway doctor --config cluster.yaml     before slipway init --config cluster.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd.Context(), std, g, f) },
	}
	f.config.register(cmd.Flags())
	f.out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

// The exit codes of doctor beside 0 and 1.
const (
	exitWarnings = 2
	exitErrors   = 3
)

// diagnosis is what `slipway doctor -o json` prints.
type diagnosis struct {
	Verdict      string           `json:"verdict"`      // ok, warning, error
	ControlPlane *bool            `json:"controlPlane"` // null when that could not be told in time
	Findings     []doctor.Finding `json:"findings"`
	Versions     []namedVersion   `json:"versions"`
	Disk         *diskFigures     `json:"disk,omitempty"`
	Etcd         *etcdFigures     `json:"etcd,omitempty"`
	NextExpiry   *certificate     `json:"nextExpiry,omitempty"` // the certificate that ends first
}

type namedVersion struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type diskFigures struct {
	Path            string  `json:"path"`
	FsyncP99Seconds float64 `json:"fsyncP99Seconds"`
	Samples         int     `json:"samples"`
}

type etcdFigures struct {
	SizeBytes  int64 `json:"sizeBytes"`
	InUseBytes int64 `json:"inUseBytes"`
	QuotaBytes int64 `json:"quotaBytes"`
}

func runDoctor(ctx context.Context, std Streams, g *global, f doctorFlags) error {
	seen, kernel, err := examine(ctx, std, g, &f.config)
	if err != nil {
		return err
	}
	d := diagnose(seen, kernel)
	done, err := f.out.print(std.Out, d, false)
	if !done && err == nil {
		err = printDiagnosis(std.Out, d)
	}
	if err != nil {
		return err
	}
	switch d.Verdict {
	case doctor.Error.String():
		return &exit{code: exitErrors}
	case doctor.Warning.String():
		return &exit{code: exitWarnings}
	}
	return nil
}

func diagnose(s doctor.Seen, kernel string) diagnosis {
	d := diagnosis{Verdict: "ok", Findings: doctor.Diagnose(s)}
	if s.Initialized || !s.Unread {
		d.ControlPlane = &s.Initialized
	}
	if worst, any := doctor.Worst(d.Findings); any {
		d.Verdict = worst.String()
	}
	d.Versions = []namedVersion{{"slipway", version}}
	for _, c := range s.Components {
		if c.Version != "" {
			d.Versions = append(d.Versions, namedVersion{c.Name, c.Version})
		}
	}
	if s.Runtime.Version != "" {
		d.Versions = append(d.Versions, namedVersion{s.Runtime.Name, s.Runtime.Version})
	}
	d.Versions = append(d.Versions, namedVersion{"kernel", cmp.Or(kernel, "unknown")})
	if s.Disk != nil && s.Disk.Samples > 0 {
		d.Disk = &diskFigures{s.Disk.Dir, s.Disk.P99.Seconds(), s.Disk.Samples}
	}
	if s.Etcd != nil && s.Etcd.Err == "" {
		d.Etcd = &etcdFigures{s.Etcd.Size, s.Etcd.InUse, s.Etcd.Quota}
	}
	for _, e := range s.Certificates {
		if c := certificateOf(e, s.Now); !e.NotAfter.IsZero() && (d.NextExpiry == nil || c.NotAfter.Before(d.NextExpiry.NotAfter)) {
			d.NextExpiry = &c
		}
	}
	return d
}

func printDiagnosis(out io.Writer, d diagnosis) error {
	var text strings.Builder
	counts := map[doctor.Severity]int{}
	for _, f := range d.Findings {
		counts[f.Severity]++
		fmt.Fprintf(&text, "%-7s  [%s] %s\n", f.Severity, f.Check, strings.ReplaceAll(f.Message, "\n", "\n         "))
		if f.Fix != "" {
			fmt.Fprintf(&text, "         do: %s\n", f.Fix)
		}
	}
	if len(d.Findings) > 0 {
		text.WriteString("\n")
	}
	var versions []string
	for _, v := range d.Versions {
		versions = append(versions, v.Name+" "+v.Version)
	}
	rows := [][]string{{"versions", strings.Join(versions, ", ")}}
	if d.Disk != nil {
		rows = append(rows, []string{"disk", fmt.Sprintf("%s: a small write is durable within %.1f ms (99th percentile of %d)", d.Disk.Path, d.Disk.FsyncP99Seconds*1000, d.Disk.Samples)})
	}
	if d.Etcd != nil {
		rows = append(rows, []string{"etcd", fmt.Sprintf("%.1f MB, %.1f MB of them in use, quota %d MB", mebibytes(d.Etcd.SizeBytes), mebibytes(d.Etcd.InUseBytes), d.Etcd.QuotaBytes>>20)})
	}
	if d.NextExpiry != nil {
		rows = append(rows, []string{"certificates", fmt.Sprintf("%s ends first, on %s (%d days)", d.NextExpiry.Name, d.NextExpiry.NotAfter.UTC().Format(time.DateOnly), d.NextExpiry.DaysLeft)})
	}
	var c columns
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("printing the findings: %w", err)
	}
	if err := c.print(out, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", d.summary(counts))
	return err
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// summary is the last line.
func (d diagnosis) summary(counts map[doctor.Severity]int) string {
	subject := "this node"
	switch {
	case d.ControlPlane == nil:
		subject = "this machine, of which is not known whether it has a control plane,"
	case !*d.ControlPlane:
		subject = "this machine, which has no control plane yet,"
	}
	if d.Verdict == "ok" {
		text := subject + " is fine"
		if n := counts[doctor.Note]; n > 0 {
			text += ", with " + plural(n, "note")
		}
		return text
	}
	return fmt.Sprintf("%s has %s and %s", subject, plural(counts[doctor.Error], "error"), plural(counts[doctor.Warning], "warning"))
}
