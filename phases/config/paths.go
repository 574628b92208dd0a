package config

import "path/filepath"

// Paths are all the places on disk that slipway uses, seen from the host (without the --root prefix: the store adds
// it). They come from NewPaths only; nothing else in the project spells a location.
type Paths struct {
	Kubernetes    string // /etc/kubernetes
	Manifests     string // staticPodPath
	PKI           string // certificatesDir
	Kubelet       string // /var/lib/kubelet
	KubeletConfig string
	EtcdData      string // /var/lib/etcd: the default of etcd.local.dataDir

	State            string // /var/lib/slipway: survives a reboot
	Ledger           string
	ImageArchives    string
	Containerd       string // root of slipway's own containerd
	ContainerdConfig string
	Backups          string // of etcd and of the node; not init's, so that reset leaves it
	LastGood         string // the supervisor's: the last version of each manifest that was ready

	Run              string // /run/slipway: gone after a reboot
	ContainerdState  string
	ContainerdSocket string
	ContainerdPID    string
	SupervisorSocket string
	SupervisorPID    string
	SupervisorLock   string
	InitLock         string

	Logs           string // /var/log/slipway: only without an init system
	PodLogs        string // /var/log/pods, as the kubelet
	ContainerLogs  string // /var/log/containers, as the kubelet
	Units          string // /etc/systemd/system
	ContainerdUnit string // unit name
	SupervisorUnit string // unit name
}

// NewPaths returns the locations of an instance. The host's only instance is "", with kubeadm's own paths; another
// name gets its own directories beside them, so that two instances never touch each other's files.
func NewPaths(instance string) Paths {
	suffix := ""
	if instance != "" {
		suffix = "-" + instance
	}
	p := Paths{
		Kubernetes: "/etc/kubernetes" + suffix, Kubelet: "/var/lib/kubelet" + suffix, EtcdData: "/var/lib/etcd" + suffix,
		Backups: "/var/backups/slipway" + suffix,
		State:   "/var/lib/slipway" + suffix, Run: "/run/slipway" + suffix, Logs: "/var/log/slipway" + suffix,
		PodLogs: "/var/log/pods", ContainerLogs: "/var/log/containers",
		Units: "/etc/systemd/system", ContainerdUnit: "slipway" + suffix + "-containerd.service", SupervisorUnit: "slipway" + suffix + ".service",
	}
	p.Manifests = filepath.Join(p.Kubernetes, "manifests")
	p.PKI = filepath.Join(p.Kubernetes, "pki")
	p.KubeletConfig = filepath.Join(p.Kubelet, "config.yaml")
	p.Ledger = filepath.Join(p.State, "ledger.jsonl")
	p.ImageArchives = filepath.Join(p.State, "images")
	p.Containerd = filepath.Join(p.State, "containerd")
	p.ContainerdConfig = filepath.Join(p.State, "containerd.toml")
	p.LastGood = filepath.Join(p.State, "last-good")
	p.ContainerdState = filepath.Join(p.Run, "containerd")
	p.ContainerdSocket = filepath.Join(p.Run, "containerd.sock")
	p.ContainerdPID = filepath.Join(p.Run, "containerd.pid")
	p.SupervisorSocket = filepath.Join(p.Run, "slipway.sock")
	p.SupervisorPID = filepath.Join(p.Run, "supervise.pid")
	p.SupervisorLock = filepath.Join(p.Run, "supervise.lock")
	p.InitLock = filepath.Join(p.State, "init.lock")
	return p
}

// Kubeconfig returns the path of a kubeconfig by its file name, such as "admin.conf".
func (p Paths) Kubeconfig(name string) string { return filepath.Join(p.Kubernetes, name) }

// ApplyRecord is where an apply keeps what it needs to be continued, or taken back, while it runs.
func (p Paths) ApplyRecord() string { return filepath.Join(p.State, "apply.json") }
