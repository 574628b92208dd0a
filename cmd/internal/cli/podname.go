package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

// podHelp is what the help texts of commands that take a pod say about its name.
const podHelp = "POD is the name of the manifest (etcd), of the pod (etcd-node1), or either as NAMESPACE/NAME."

// podName is the name of a pod of this node.
type podName struct{ namespace, name, node string } // node "" where it is not known

func (p podName) full() string { return p.namespace + "/" + p.name }

// manifest is the name that the manifest gives: the pod's without the node.
func (p podName) manifest() string { return strings.TrimSuffix(p.name, "-"+strings.ToLower(p.node)) }

// means tells whether a name without a namespace is the pod's own, and whether it may be the manifest's.
func (p podName) means(name string) (own, manifest bool) {
	if p.node == "" {
		return p.name == name, strings.HasPrefix(p.name, name+"-")
	}
	return p.name == name, p.manifest() == name
}

func podNames(list *corev1.PodList) []podName {
	var names []podName
	for _, p := range list.Items {
		names = append(names, podName{p.Namespace, p.Name, p.Spec.NodeName})
	}
	return names
}

// findPod returns the pod that a user means. A pod's own name goes before a manifest's.
func findPod(typed string, pods []podName) (podName, error) {
	namespace, name, qualified := strings.Cut(typed, "/")
	if !qualified {
		namespace, name = "", typed
	}
	if name == "" || strings.ContainsAny(typed, `*?[\`) {
		return podName{}, fmt.Errorf("%q is not the name of a pod", typed)
	}
	var owns, manifests []podName
	for _, p := range pods {
		own, manifest := p.means(name)
		switch {
		case qualified && p.namespace != namespace:
		case own:
			owns = append(owns, p)
		case manifest:
			manifests = append(manifests, p)
		}
	}
	if len(owns) == 0 {
		owns = manifests
	}
	switch len(owns) {
	case 0:
		return podName{}, unknownPod(typed, pods)
	case 1:
		return owns[0], nil
	}
	var candidates []string
	for _, p := range owns {
		candidates = append(candidates, p.full())
	}
	slices.Sort(candidates)
	return podName{}, fmt.Errorf("%q may mean any of: %s", typed, strings.Join(candidates, ", "))
}

// unknownPod is an error with the nearest name, or with all of them.
func unknownPod(typed string, pods []podName) error {
	err := fmt.Errorf("no pod is named %q", typed)
	if len(pods) == 0 {
		return withHint(err, "there are no pods")
	}
	best, distance := "", len(typed)
	var all []string
	for _, p := range pods {
		all = append(all, p.full())
		for _, spelling := range []string{p.manifest(), p.name, p.namespace + "/" + p.manifest(), p.full()} {
			if d := levenshtein.ComputeDistance(typed, spelling); d < distance || d == distance && spelling < best {
				best, distance = spelling, d
			}
		}
	}
	if distance <= max(2, len(typed)/4) { // two letters are a typing error; more only in a long name
		return withHint(err, "did you mean: "+best)
	}
	slices.Sort(all)
	return withHint(err, "there are: "+strings.Join(all, ", "))
}

// completePods offers the pods that the supervisor runs, as many as the command takes, and after the first, with
// containers, the names of that one's containers.
func completePods(g *global, most int, containers bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		list, err := g.supervisor().pods(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		switch {
		case containers && len(args) == 1:
			names = containersOf(list, args[0])
		case len(args) < most:
			names = shortest(podNames(list))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// shortest are the pods' names, with the namespace where two have the same.
func shortest(pods []podName) []string {
	count := map[string]int{}
	for _, p := range pods {
		count[p.name]++
	}
	var names []string
	for _, p := range pods {
		if count[p.name] > 1 {
			names = append(names, p.full())
		} else {
			names = append(names, p.name)
		}
	}
	return names
}

// completeContainers offers the containers of the pod that is named first.
func completeContainers(g *global) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		list, err := g.supervisor().pods(cmd.Context())
		if err != nil || len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return containersOf(list, args[0]), cobra.ShellCompDirectiveNoFileComp
	}
}

func containersOf(list *corev1.PodList, typed string) []string {
	name, err := findPod(typed, podNames(list))
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range slices.Concat(podOf(list, name).Spec.Containers, podOf(list, name).Spec.InitContainers) {
		names = append(names, c.Name)
	}
	return names
}

// podOf returns the pod of that name, which is in the list.
func podOf(list *corev1.PodList, name podName) *corev1.Pod {
	i := slices.IndexFunc(list.Items, func(p corev1.Pod) bool {
		return p.Namespace == name.namespace && p.Name == name.name
	})
	return &list.Items[i]
}
