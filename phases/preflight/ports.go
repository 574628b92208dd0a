package preflight

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/slipway-k8s/slipway/phases/config"
)

// port is one that a component will listen on, and how a user moves it.
type port struct {
	number uint16
	user   string
	option string
}

// ports returns what the control plane will listen on: kubeadm's defaults, unless extraArgs say otherwise. A port of 0
// is one that is not opened.
func ports(cfg *config.Cluster) []port {
	list := []port{
		{cfg.BindPort, "kube-apiserver", "--apiserver-bind-port"},
		{secure(cfg.ControllerManager.ExtraArgs, 10257), "kube-controller-manager", "controllerManager.extraArgs: secure-port"},
		{secure(cfg.Scheduler.ExtraArgs, 10259), "kube-scheduler", "scheduler.extraArgs: secure-port"},
	}
	if etcd := cfg.Etcd.Local; etcd != nil {
		for _, flag := range []struct {
			name   string
			number uint16
		}{{"listen-client-urls", 2379}, {"listen-peer-urls", 2380}, {"listen-metrics-urls", 2381}} {
			for _, number := range listening(etcd.ExtraArgs, flag.name, flag.number) {
				list = append(list, port{number, "etcd", "etcd.local.extraArgs: " + flag.name})
			}
		}
	}
	open := list[:0]
	for _, p := range list {
		if p.number != 0 {
			open = append(open, p)
		}
	}
	return open
}

// last returns the value of a flag that was given; the last one counts.
func last(args []config.Arg, name string) (string, bool) {
	for i := len(args) - 1; i >= 0; i-- {
		if args[i].Name == name {
			return args[i].Value, true
		}
	}
	return "", false
}

func secure(args []config.Arg, usual uint16) uint16 {
	value, given := last(args, "secure-port")
	number, err := strconv.ParseUint(value, 10, 16)
	if !given || err != nil { // the component itself says what is wrong with it
		return usual
	}
	return uint16(number)
}

func listening(args []config.Arg, name string, usual uint16) []uint16 {
	value, given := last(args, name)
	if !given {
		return []uint16{usual}
	}
	var numbers []uint16
	for address := range strings.SplitSeq(value, ",") {
		u, err := url.Parse(address)
		if err != nil {
			continue
		}
		if number, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
			numbers = append(numbers, uint16(number))
		}
	}
	return numbers
}

// manifests are the files that init writes into the manifest directory.
func manifests(cfg *config.Cluster) []string {
	var paths []string
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		paths = append(paths, cfg.Paths.Manifests+"/"+name+".yaml")
	}
	if cfg.Etcd.Local != nil {
		paths = append(paths, cfg.Paths.Manifests+"/etcd.yaml")
	}
	return paths
}

// proxyFor returns the proxy that a connection to the address would take, or "".
func proxyFor(variables map[string]string, to netip.Addr) string {
	env := func(name string) string {
		if v := variables[name]; v != "" {
			return v
		}
		return variables[strings.ToUpper(name)]
	}
	settings := httpproxy.Config{HTTPProxy: env("http_proxy"), HTTPSProxy: env("https_proxy"), NoProxy: env("no_proxy")}
	proxy, err := settings.ProxyFunc()(&url.URL{Scheme: "https", Host: netip.AddrPortFrom(to, 443).String()})
	if err != nil || proxy == nil {
		return ""
	}
	return proxy.Redacted()
}
