package templates

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Arg is one flag, without leading dashes.
type Arg struct{ Name, Value string }

// Args are a user's extra flags in the user's order. A name may occur more than once.
type Args []Arg

// Has reports whether a flag of this name is among them.
func (a Args) Has(name string) bool {
	_, ok := a.Last(name)
	return ok
}

// Last returns the value of the last flag of this name: the one that a component obeys where the flag is no list.
func (a Args) Last(name string) (value string, ok bool) {
	for _, arg := range a {
		if arg.Name == name {
			value, ok = arg.Value, true
		}
	}
	return value, ok
}

// Volume is a host path and the one place where the container sees it.
type Volume struct {
	Name, HostPath, MountPath string
	ReadOnly                  bool
	Type                      corev1.HostPathType
}

// Probe says where a component answers its health checks.
type Probe struct {
	Host            string           // "" is the pod's own address, i.e. the node's
	Port            int32            // 1–65535
	Scheme          corev1.URIScheme // read for etcd only: the other components serve HTTPS
	StartupFailures int32            // of one every 10 s, after which the container is restarted
}

// Extra is what the user and the host add to a template. Each part is merged by name, and the later one wins.
type Extra struct {
	Args    Args
	Env     []corev1.EnvVar
	Volumes []Volume
}

// EtcdValues are what etcd's manifest depends on.
type EtcdValues struct {
	Image            string
	NodeName         string
	AdvertiseAddress netip.Addr
	PKI              string // certificates directory of the cluster; etcd's are in its "etcd" directory
	DataDir          string
	Probe            Probe
	Extra
}

// EtcdClient says how the API server reaches etcd. Files that are "" get no flag.
type EtcdClient struct {
	Servers                   string // URLs, separated by commas
	CAFile, CertFile, KeyFile string
}

// APIServerValues are what kube-apiserver's manifest depends on.
type APIServerValues struct {
	Image            string
	AdvertiseAddress netip.Addr
	BindPort         uint16
	PKI              string
	ServiceSubnets   string // one CIDR, or two separated by a comma
	DNSDomain        string
	Etcd             EtcdClient
	Probe            Probe
	Extra
}

// ControllerManagerValues are what kube-controller-manager's manifest depends on.
type ControllerManagerValues struct {
	Image          string
	Kubeconfig     string
	PKI            string
	ClusterName    string // "" for none
	PodSubnets     string // "" where node CIDRs are not allocated
	ServiceSubnets string
	SigningCert    string // certificate and key of the CA that signs requests; both "" where the key is elsewhere
	SigningKey     string
	Probe          Probe
	Extra
}

// SchedulerValues are what kube-scheduler's manifest depends on.
type SchedulerValues struct {
	Image      string
	Kubeconfig string
	Probe      Probe
	Extra
}
