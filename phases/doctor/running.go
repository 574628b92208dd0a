package doctor

import (
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// Running returns the cluster as its manifests on disk say it is: addresses, ports, directories, versions and flags. What
// they do not say, or what cannot be read, is as in c. manifests are the files' contents by component.
func Running(c config.Cluster, manifests map[string][]byte) *config.Cluster {
	pods := map[string]*corev1.Pod{}
	for name, data := range manifests {
		var pod corev1.Pod
		if yaml.Unmarshal(data, &pod) == nil && len(pod.Spec.Containers) > 0 {
			pods[name] = &pod
		}
	}
	c.APIServer = config.Component{ExtraArgs: arguments(pods["kube-apiserver"])}
	c.ControllerManager = config.Component{ExtraArgs: arguments(pods["kube-controller-manager"])}
	c.Scheduler = config.Component{ExtraArgs: arguments(pods["kube-scheduler"])}
	if a, err := netip.ParseAddr(last(c.APIServer.ExtraArgs, "advertise-address")); err == nil {
		c.AdvertiseAddress = a
	}
	if p, err := strconv.ParseUint(last(c.APIServer.ExtraArgs, "secure-port"), 10, 16); err == nil {
		c.BindPort = uint16(p)
	}
	c.ServiceSubnets = prefixes(last(c.APIServer.ExtraArgs, "service-cluster-ip-range"), c.ServiceSubnets)
	c.PodSubnets = prefixes(last(c.ControllerManager.ExtraArgs, "cluster-cidr"), c.PodSubnets)
	if ca, found := strings.CutSuffix(last(c.APIServer.ExtraArgs, "client-ca-file"), "/ca.crt"); found {
		c.Paths.PKI = ca
	}
	if v := Version(pods["kube-apiserver"]); v != "" {
		c.KubernetesVersion = v
	}
	_, there := manifests["etcd"]
	switch {
	case there:
		local := config.LocalEtcd{DataDir: c.Paths.EtcdData}
		if c.Etcd.Local != nil {
			local.DataDir = c.Etcd.Local.DataDir
		}
		local.ExtraArgs = arguments(pods["etcd"])
		if dir := last(local.ExtraArgs, "data-dir"); dir != "" {
			local.DataDir = dir
		}
		if name := last(local.ExtraArgs, "name"); name != "" {
			c.NodeName = name
		}
		c.Etcd = config.Etcd{Local: &local}
	case external(last(c.APIServer.ExtraArgs, "etcd-servers")):
		c.Etcd = config.Etcd{External: &config.ExternalEtcd{}}
	}
	return &c
}

// external reports whether etcd's addresses are those of other machines.
func external(servers string) bool {
	return servers != "" && !strings.Contains(servers, "//127.0.0.1:") && !strings.Contains(servers, "//[::1]:") && !strings.Contains(servers, "//localhost:")
}

// Version is the tag of the pod's image, "" where it has none.
func Version(pod *corev1.Pod) string {
	if pod == nil || len(pod.Spec.Containers) == 0 {
		return ""
	}
	return plane.Tag(pod.Spec.Containers[0].Image)
}

// arguments are the flags of the pod's first container.
func arguments(pod *corev1.Pod) []config.Arg {
	if pod == nil {
		return nil
	}
	var args []config.Arg
	for _, word := range append(append([]string{}, pod.Spec.Containers[0].Command...), pod.Spec.Containers[0].Args...) {
		if flag, isFlag := strings.CutPrefix(word, "--"); isFlag {
			name, value, _ := strings.Cut(flag, "=")
			args = append(args, config.Arg{Name: name, Value: value})
		}
	}
	return args
}

func last(args []config.Arg, name string) string {
	value := ""
	for _, a := range args {
		if a.Name == name {
			value = a.Value
		}
	}
	return value
}

func prefixes(list string, otherwise []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for p := range strings.SplitSeq(list, ",") {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return otherwise
		}
		all = append(all, prefix)
	}
	return all
}
