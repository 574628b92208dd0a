// Package containerd configures slipway's own containerd, loads images into it, follows its events.
package containerd

import (
	"encoding/json"
	"strings"
	"text/template"
)

// ConfigOptions are what slipway's own containerd is told. All paths are absolute.
type ConfigOptions struct {
	Root   string // persistent data
	State  string // gone after a reboot; on a tmpfs
	Socket string // serves CRI and containerd's own API; root only

	SandboxImage  string
	SystemdCgroup bool // the kubelet configuration's cgroupDriver is systemd

	Facts // of the machine; see Detect

	CNIConfDir     string // "" is /etc/cni/net.d
	RegistryConfig string // directory of hosts.toml files; "" is /etc/containerd/certs.d
}

// Config returns the configuration file. The same options give the same bytes. It is of format version 2, which
// containerd 1.6 and 1.7 read as it is and 2.x migrates when it loads it: one file serves all of them, and an upgrade
// of containerd needs no new one. Names that a version does not know are ignored by it.
func Config(o ConfigOptions) []byte {
	o.CNIConfDir = orDefault(o.CNIConfDir, "/etc/cni/net.d")
	o.CNIBinDir = orDefault(o.CNIBinDir, "/opt/cni/bin")
	o.RegistryConfig = orDefault(o.RegistryConfig, "/etc/containerd/certs.d")
	o.Snapshotter = orDefault(o.Snapshotter, overlayfs)
	var out strings.Builder
	if err := configTemplate().Execute(&out, o); err != nil {
		panic("containerd: the configuration template does not fit ConfigOptions: " + err.Error())
	}
	return []byte(out.String())
}

// Command returns the command line that runs containerd with the configuration file at path. It finds its shim and
// runc on its own PATH.
func Command(path string) []string { return []string{"containerd", "--config", path} }

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

func configTemplate() *template.Template {
	return template.Must(template.New("containerd.toml").Funcs(template.FuncMap{
		// A JSON string is a TOML basic string.
		"str": func(s string) (string, error) { b, err := json.Marshal(s); return string(b), err },
	}).Parse(configText))
}

// configText keeps everything under Root and State, or switches it off:
//   - opt makes /opt/containerd, restart is a supervisor of its own, NRI listens on one socket for the whole host.
//   - runc's Root and the shims' sockets would else be in /run/containerd, which other containerds share.
const configText = `# Written by slipway for its own containerd. Changes are lost at the next slipway init.
version = 2
root = {{str .Root}}
state = {{str .State}}
oom_score = {{if .LowerOOMScore}}-999{{else}}0{{end}}
disabled_plugins = [
  "io.containerd.differ.v1.erofs",
  "io.containerd.image-verifier.v1.bindir",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.monitor.container.v1.restart",
  "io.containerd.mount-handler.v1.erofs",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = {{str .Socket}}
  uid = 0
  gid = 0

[debug]
  address = ""
  level = "info"

[metrics]
  address = ""

[plugins."io.containerd.nri.v1.nri"]
  disable = true

{{- with .ShimDir}}

[plugins."io.containerd.shim.v1.manager"]
  socket_dir = {{str .}}
{{- end}}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {{str .SandboxImage}}
  # Without CAP_SYS_RESOURCE no process may be made less likely to be killed, and each container would fail at it.
  restrict_oom_score_adj = {{not .LowerOOMScore}}
  max_container_log_line_size = 16384
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {{str .CNIBinDir}}
    conf_dir = {{str .CNIConfDir}}

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {{str .RegistryConfig}}

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = {{str .Snapshotter}}
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = {{str .RuncDir}}
        SystemdCgroup = {{.SystemdCgroup}}
`

// ShimDir is where the sockets of the shims go from containerd 2.4 on. Before, they are in /run/containerd/s whatever
// the configuration says; so they are, with "", when the path would be longer than the 42 bytes that a unix socket's
// 107 leave beside the name.
func (o ConfigOptions) ShimDir() string {
	if dir := o.State + "/s"; len(dir) <= 42 {
		return dir
	}
	return ""
}

// RuncDir is where runc keeps the state of running containers.
func (o ConfigOptions) RuncDir() string { return o.State + "/runc" }
