package config

import (
	"reflect"
	"slices"
	"strings"
)

// Fields returns the path of every field of kubeadm's InitConfiguration and ClusterConfiguration, in their order:
// "networking.podSubnet", "scheduler.extraArgs[].name". Those that only group others are left out.
func Fields() (init, cluster []string) {
	return leaves(reflect.TypeFor[initConfiguration]()), leaves(reflect.TypeFor[clusterConfiguration]())
}

func leaves(t reflect.Type) []string {
	var all []string
	walkFields(t, "", func(path string) { all = append(all, path) })
	return slices.DeleteFunc(slices.Clone(all), func(path string) bool {
		return path == "apiVersion" || path == "kind" || slices.ContainsFunc(all, func(p string) bool {
			return strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[].")
		})
	})
}
