// Package joincommand holds the phase that works out how another machine joins.
package joincommand

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// New returns the phase.
func New() phases.Phase {
	return phases.Phase{
		Name:  "show-join-command",
		Short: "Show the command with which another machine joins",
		Long: "Shows the kubeadm join command for a worker, and for a further control-plane node where the cluster has a stable endpoint.\n" +
			"Run alone it shows them with a token that is in the cluster already.",
		After: []string{"bootstrap-token", "upload-certs"},
		Run:   run,
	}
}

func run(ctx context.Context, env *phases.Env) error {
	cluster, err := bootstraptoken.Cluster(env.Files, env.Config)
	if err != nil {
		return err
	}
	if len(cluster.CertificateAuthorityData) == 0 {
		return nil // a preview without the files
	}
	tokens := env.Join.Tokens
	if len(tokens) == 0 {
		existing, err := bootstraptoken.Existing(ctx, env)
		if err != nil {
			return err
		}
		for _, t := range existing {
			if slices.Contains(t.Usages, "authentication") && slices.Contains(t.Usages, "signing") && (t.Expires.IsZero() || t.Expires.After(env.Now())) {
				tokens = append(tokens, bootstraptoken.Text(t))
			}
		}
	}
	for _, token := range tokens {
		line, err := Worker(cluster, token)
		if err != nil {
			return err
		}
		env.Join.Commands = append(env.Join.Commands, phases.JoinCommand{Token: token, Line: line})
		if env.Config.ControlPlaneEndpoint != "" {
			env.Join.Commands = append(env.Join.Commands, phases.JoinCommand{Token: token, ControlPlane: true, Line: ControlPlane(line, env.Join.CertificateKey)})
		}
	}
	return nil
}

// Worker returns the command with which a machine joins as a worker.
func Worker(c document.Cluster, token string) (string, error) {
	authorities, err := pki.ParseCertificates(c.CertificateAuthorityData)
	if err != nil {
		return "", fmt.Errorf("reading the certificate authority of the kubeconfig: %w", err)
	}
	address, ok := strings.CutPrefix(c.Server, "https://")
	if !ok {
		return "", errors.New("the kubeconfig's server is not an https URL")
	}
	line := "kubeadm join " + address + " --token " + token
	for _, a := range authorities {
		line += fmt.Sprintf(" --discovery-token-ca-cert-hash sha256:%x", sha256.Sum256(a.RawSubjectPublicKeyInfo))
	}
	return line, nil
}

// ControlPlane makes a worker's command one for a control-plane node. Without a key the authorities are brought by hand.
func ControlPlane(worker, key string) string {
	if key == "" {
		return worker + " --control-plane"
	}
	return worker + " --control-plane --certificate-key " + key
}
