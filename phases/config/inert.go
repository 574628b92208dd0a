package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// inert is a field that init does not act on. Set to what kubeadm prints or does anyway it only earns a warning, so that
// the output of `kubeadm config print init-defaults` loads; anything else is refused, never ignored.
type inert struct {
	field   string
	refused bool
	reason  string
}

// inertFields returns the fields without effect, judged by their values.
func inertFields(docs documents) []inert {
	const (
		noKubelet = "no kubelet is started"
		forJoin   = "it is for kubeadm join, which reads a file of its own"
		noUpgrade = "it is for upgrade, which does not exist yet"
	)
	init := docs.init
	timeout := func(name string, d *metav1.Duration, kubeadms time.Duration, reason string) inert {
		return inert{"timeouts." + name, d != nil && d.Duration != 0 && d.Duration != kubeadms, reason}
	}
	return []inert{
		{"nodeRegistration.kubeletExtraArgs", len(init.NodeRegistration.KubeletExtraArgs) > 0, noKubelet + "; use a KubeletConfiguration document"},
		timeout("kubeletHealthCheck", init.Timeouts.KubeletHealthCheck, 4*time.Minute, noKubelet),
		timeout("tlsBootstrap", init.Timeouts.TLSBootstrap, 5*time.Minute, forJoin),
		timeout("discovery", init.Timeouts.Discovery, 5*time.Minute, forJoin),
		timeout("upgradeManifests", init.Timeouts.UpgradeManifests, 5*time.Minute, noUpgrade),
	}
}

// checkInert warns about the inert fields that the user gave, or refuses them.
func checkInert(r *report, docs documents) {
	for _, f := range inertFields(docs) {
		switch {
		case f.refused:
			r.problemf(f.field, "has no effect: %s; remove the field", f.reason)
		case r.given(f.field):
			r.warnf(f.field, "has no effect: %s", f.reason)
		}
	}
}
