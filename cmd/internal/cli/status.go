package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/runtime/status"
)

func newStatus(std Streams, g *global) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "status", Short: "Show the control plane of this node: components, certificates, paths", Args: noArguments,
		Long: "status shows what runs on this node, since when and why not, how long the certificates are good, and where things are.\n" +
			"It asks the supervisor and reads files: no API server is needed. The exit code is 1 when a component is not ready.",
		RunE: func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), std, g, out) },
	}
	out.register(cmd.Flags(), "text", "json")
	return cmd
}

// nodeStatus is what `slipway status -o json` prints.
type nodeStatus struct {
	Supervisor   supervisorState  `json:"supervisor"`
	Components   []component      `json:"components"`
	Problems     []status.Problem `json:"problems"`
	Certificates []certificate    `json:"certificates"`
	Paths        places           `json:"paths"`
}

type supervisorState struct {
	Running bool   `json:"running"`
	Error   string `json:"error,omitempty"`
}

type component struct {
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	State     string    `json:"state"`
	Ready     bool      `json:"ready"`
	Restarts  int32     `json:"restarts"`
	Since     time.Time `json:"since,omitzero"`
	Why       string    `json:"why,omitempty"`
	Problem   string    `json:"problem,omitempty"`
	LastExit  string    `json:"lastExit,omitempty"`
	Manifest  string    `json:"manifest,omitempty"`
}

type certificate struct {
	Name     string    `json:"name"`
	Path     string    `json:"path"`
	NotAfter time.Time `json:"notAfter,omitzero"`
	DaysLeft int       `json:"daysLeft"`
	Missing  bool      `json:"missing,omitempty"`
	Error    string    `json:"error,omitempty"`
}

type places struct {
	Manifests  string `json:"manifests"`
	Config     string `json:"kubeletConfiguration"`
	Runtime    string `json:"runtimeSocket"`
	Supervisor string `json:"supervisorSocket"`
	PodLogs    string `json:"podLogs"`
	Logs       string `json:"logs"`
	PKI        string `json:"certificates"`
	Ledger     string `json:"ledger"`
}

func runStatus(ctx context.Context, std Streams, g *global, out output) error {
	now := time.Now()
	paths := g.paths()
	s := nodeStatus{Paths: locate(paths), Components: []component{}, Problems: []status.Problem{}}
	if s.Paths.PKI != "" {
		paths.PKI = s.Paths.PKI
	}
	client := newLocal(paths.SupervisorSocket)
	list, err := client.pods(ctx)
	if err == nil {
		s.Supervisor.Running = true
		for _, p := range list.Items {
			s.Components = append(s.Components, componentOf(p))
		}
		if s.Problems, err = client.problems(ctx); err != nil {
			return err
		}
	} else {
		s.Supervisor.Error = err.Error()
	}
	for _, e := range pki.Expirations(os.ReadFile, paths) {
		s.Certificates = append(s.Certificates, certificateOf(e, now))
	}
	if out.format == "json" {
		if err := printJSON(std.Out, s); err != nil {
			return err
		}
	} else if err := printStatus(std, s, now); err != nil {
		return err
	}
	if !s.Supervisor.Running {
		return withHint(errors.New(s.Supervisor.Error), supervisorHint(g))
	}
	for _, c := range s.Components {
		if !c.Ready {
			return &exit{code: 1}
		}
	}
	return nil
}

// locate returns where things are. The manifest directory and the runtime's socket are those of the
// KubeletConfiguration, where there is one.
func locate(p config.Paths) places {
	at := places{Manifests: p.Manifests, Config: p.KubeletConfig, Runtime: p.ContainerdSocket, Supervisor: p.SupervisorSocket,
		PodLogs: p.PodLogs, Logs: p.Logs, PKI: p.PKI, Ledger: p.Ledger}
	var kubelet struct {
		StaticPodPath            string `json:"staticPodPath"`
		ContainerRuntimeEndpoint string `json:"containerRuntimeEndpoint"`
		PodLogsDir               string `json:"podLogsDir"`
		Authentication           struct {
			X509 struct {
				ClientCAFile string `json:"clientCAFile"`
			} `json:"x509"`
		} `json:"authentication"`
	}
	data, err := os.ReadFile(p.KubeletConfig)
	if err != nil || yaml.Unmarshal(data, &kubelet) != nil {
		return at
	}
	if kubelet.StaticPodPath != "" {
		at.Manifests = kubelet.StaticPodPath
	}
	at.PodLogs = cmp.Or(kubelet.PodLogsDir, at.PodLogs)
	if kubelet.ContainerRuntimeEndpoint != "" {
		at.Runtime = strings.TrimPrefix(kubelet.ContainerRuntimeEndpoint, "unix://")
	}
	if ca := kubelet.Authentication.X509.ClientCAFile; strings.HasSuffix(ca, "/ca.crt") {
		at.PKI = strings.TrimSuffix(ca, "/ca.crt")
	}
	return at
}

func componentOf(p corev1.Pod) component {
	c := component{Name: p.Name, Namespace: p.Namespace, State: p.Annotations[status.AnnotationState],
		Why: p.Annotations[status.AnnotationWhy], Problem: p.Annotations[status.AnnotationProblem], Manifest: p.Annotations[status.AnnotationSource]}
	for _, cond := range p.Status.Conditions {
		if cond.Type == corev1.PodReady {
			c.Ready = cond.Status == corev1.ConditionTrue
		}
	}
	for _, s := range p.Status.ContainerStatuses {
		c.Restarts += s.RestartCount
		if _, since := containerState(s); since.After(c.Since) {
			c.Since = since
		}
		if last := s.LastTerminationState.Terminated; last != nil {
			c.LastExit = fmt.Sprintf("%s, exit code %d", last.Reason, last.ExitCode)
		}
	}
	return c
}

func certificateOf(e pki.Expiry, now time.Time) certificate {
	c := certificate{Name: e.Name, Path: e.Path, NotAfter: e.NotAfter, Missing: e.Missing}
	if e.Err != nil {
		c.Error = e.Err.Error()
	}
	if !e.NotAfter.IsZero() {
		c.DaysLeft = int(e.NotAfter.Sub(now).Hours() / 24)
	}
	return c
}

func printStatus(std Streams, s nodeStatus, now time.Time) error {
	if s.Supervisor.Running {
		var rows [][]string
		for _, c := range s.Components {
			ready, since := "no", "-"
			if c.Ready {
				ready = "yes"
			}
			if !c.Since.IsZero() {
				since = age(now.Sub(c.Since))
			}
			why := c.Why
			if c.Ready {
				why = ""
			}
			if c.Problem != "" {
				why = c.Problem
			}
			rows = append(rows, []string{c.Name, c.State, ready, fmt.Sprint(c.Restarts), since, why})
		}
		if err := table(std.Out, []string{"COMPONENT", "STATE", "READY", "RESTARTS", "SINCE", "WHY"}, rows); err != nil {
			return err
		}
		for _, p := range s.Problems {
			if p.Pod == "" {
				fmt.Fprintf(std.Out, "refused: %s: %s\n", p.Source, p.Reason)
			}
		}
		fmt.Fprintln(std.Out)
	}
	var rows [][]string
	for _, c := range s.Certificates {
		switch {
		case c.Missing:
			continue
		case c.Error != "":
			rows = append(rows, []string{c.Name, "-", "unreadable: " + c.Error})
		case c.NotAfter.Before(now):
			rows = append(rows, []string{c.Name, c.NotAfter.UTC().Format("2006-01-02 15:04"), "expired"})
		default:
			rows = append(rows, []string{c.Name, c.NotAfter.UTC().Format("2006-01-02 15:04"), fmt.Sprintf("%d days", c.DaysLeft)})
		}
	}
	if len(rows) > 0 {
		if err := table(std.Out, []string{"CERTIFICATE", "EXPIRES (UTC)", "LEFT"}, rows); err != nil {
			return err
		}
		fmt.Fprintln(std.Out)
	}
	return table(std.Out, []string{"PATH", ""}, [][]string{
		{"manifests", s.Paths.Manifests}, {"kubelet configuration", s.Paths.Config}, {"certificates", s.Paths.PKI},
		{"runtime socket", s.Paths.Runtime}, {"supervisor socket", s.Paths.Supervisor},
		{"pod logs", s.Paths.PodLogs}, {"own logs", s.Paths.Logs}, {"ledger", s.Paths.Ledger},
	})
}
