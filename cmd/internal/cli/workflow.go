package cli

import (
	"os/exec"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/addon"
	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/clusteradmins"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/etcd"
	"github.com/slipway-k8s/slipway/phases/joincommand"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/phases/markcontrolplane"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/preflight"
	"github.com/slipway-k8s/slipway/phases/supervisor"
	"github.com/slipway-k8s/slipway/phases/uploadcerts"
	"github.com/slipway-k8s/slipway/phases/uploadconfig"
	"github.com/slipway-k8s/slipway/phases/wait"
	"github.com/slipway-k8s/slipway/runtime/containerd"
)

// initWorkflow is what init does, in order. containerd starts as soon as its configuration is written, beside the
// phases that only write files, and the control plane is started by the last file's neighbour: etcd and the API server
// at once, the others when the API server is ready. From cluster-admins on, the phases talk to that API
// server, all at once: what they wait for is the controller manager's signature under cluster-info.
func initWorkflow() phases.Workflow {
	deps := supervisor.Deps{ContainerdConfig: containerdConfig, LookPath: exec.LookPath}
	return phases.Workflow{Phases: []phases.Phase{
		preflight.New(),
		supervisor.Config(deps),
		pki.New(),
		kubeconfig.New(),
		kubelet.New(),
		etcd.New(),
		controlplane.New(),
		supervisor.New(deps),
		wait.New(),
		clusteradmins.New(),
		uploadconfig.New(),
		uploadcerts.New(),
		markcontrolplane.New(),
		bootstraptoken.New(),
		kubelet.Finalize(),
		addon.New(),
		joincommand.New(),
	}}
}

// containerdConfig renders the configuration of slipway's own containerd from what is known of the host.
func containerdConfig(c *config.Cluster) ([]byte, error) {
	return containerd.Config(containerd.ConfigOptions{
		Root: c.Paths.Containerd, State: c.Paths.ContainerdState, Socket: c.Paths.ContainerdSocket,
		SandboxImage: c.Images.Pause, SystemdCgroup: c.Facts.CgroupDriver == "systemd",
		Facts: containerd.Facts{LowerOOMScore: !c.Facts.RestrictOOMScore, Snapshotter: c.Facts.Snapshotter, CNIBinDir: c.Facts.CNIBinDir},
	}), nil
}
