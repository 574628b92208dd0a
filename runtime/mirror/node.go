package mirror

import (
	"maps"
	"runtime"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// TaintKey keeps pods off a node that has no kubelet to start them. A label of that name says the same. A node cannot change its own taints once it is
	// registered (NodeRestriction): only an administrator can take it away.
	TaintKey = "slipway.dev/static-pods-only"
	// readyReason is the reason of the Ready condition.
	readyReason  = "StaticPodsOnly"
	readyMessage = "slipway runs the static pods of this node; there is no kubelet to start any other pod"
	// notReadyReason is the kubelet's, for alerts that know it.
	notReadyReason = "KubeletNotReady"
)

func noSchedule() corev1.Taint {
	return corev1.Taint{Key: TaintKey, Effect: corev1.TaintEffectNoSchedule}
}
func noExecute() corev1.Taint {
	return corev1.Taint{Key: TaintKey, Effect: corev1.TaintEffectNoExecute}
}

// health is what a Node's conditions say.
type health struct {
	problem  string // why no pod can be started here, "" when one can
	pressure Pressure
}

// conditions are the kubelet's four, with its reasons. Kubernetes v1.36.3 pkg/kubelet/nodestatus/setters.go:469-741. All
// of them must be there, or the node lifecycle controller fills in "Unknown" when it misses us for a while.
func (h health) conditions(now time.Time) []corev1.NodeCondition {
	at := metav1.NewTime(now)
	condition := func(kind corev1.NodeConditionType, is bool, yes, no, yesText, noText string) corev1.NodeCondition {
		c := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: no, Message: noText, LastHeartbeatTime: at, LastTransitionTime: at}
		if is {
			c.Status, c.Reason, c.Message = corev1.ConditionTrue, yes, yesText
		}
		return c
	}
	return []corev1.NodeCondition{
		condition(corev1.NodeMemoryPressure, h.pressure.Memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
			"this machine runs short of memory", "this machine has sufficient memory available"),
		condition(corev1.NodeDiskPressure, h.pressure.Disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure",
			"the disk that the pods write to runs short of space or inodes", "the disk that the pods write to has space"),
		condition(corev1.NodePIDPressure, h.pressure.PIDs, "KubeletHasInsufficientPID", "KubeletHasSufficientPID",
			"this machine runs short of process ids", "this machine has sufficient process ids available"),
		condition(corev1.NodeReady, h.problem == "", readyReason, notReadyReason, readyMessage, h.problem),
	}
}

// nodeObject returns the Node to register.
func nodeObject(c Config, h health, now time.Time) *corev1.Node {
	labels := map[string]string{
		corev1.LabelHostname: c.NodeName, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH, // the kubelet writes them to this day
		TaintKey: "", // for DaemonSets, which may tolerate every taint: by affinity they stay off this node
	}
	return &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: c.NodeName, Labels: labels},
		Spec:       corev1.NodeSpec{Taints: taintsOf(c), Unschedulable: true, ProviderID: c.ProviderID},
		Status: corev1.NodeStatus{
			Capacity: c.Capacity, Allocatable: c.Capacity, Addresses: addresses(c), NodeInfo: c.Info,
			Conditions: h.conditions(now),
		},
	}
}

// taintsOf are slipway's and those of the configuration.
func taintsOf(c Config) []corev1.Taint {
	all := []corev1.Taint{noSchedule(), noExecute()}
	for _, t := range c.Taints {
		if !slices.ContainsFunc(all, func(own corev1.Taint) bool { return own.MatchTaint(&t) }) {
			all = append(all, t)
		}
	}
	return all
}

func addresses(c Config) []corev1.NodeAddress {
	var all []corev1.NodeAddress
	for _, ip := range c.HostIPs {
		all = append(all, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	return append(all, corev1.NodeAddress{Type: corev1.NodeHostName, Address: c.NodeName})
}

// keepsPodsAway tells whether a Node, ours or one that a kubelet registered, has the taint that this node needs.
func keepsPodsAway(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == TaintKey && t.Effect == corev1.TaintEffectNoSchedule
	})
}

// nodePatch returns the patch of labels, and of spec.unschedulable where the taint is missing: the one thing that a
// node may do about it itself. nil when there is nothing to change.
func nodePatch(want, have *corev1.Node) []byte {
	labels := map[string]string{}
	for k, v := range want.Labels {
		if have.Labels[k] != v {
			labels[k] = v
		}
	}
	patch := map[string]any{}
	if len(labels) > 0 {
		patch["metadata"] = map[string]any{"labels": labels}
	}
	if !keepsPodsAway(have) && !have.Spec.Unschedulable {
		patch["spec"] = map[string]any{"unschedulable": true}
	}
	if len(patch) == 0 {
		return nil
	}
	return encode(patch)
}

// nodeStatus holds the fields of a Node's status that are slipway's.
type nodeStatus struct {
	Capacity    corev1.ResourceList    `json:"capacity,omitempty"`
	Allocatable corev1.ResourceList    `json:"allocatable,omitempty"`
	Conditions  []corev1.NodeCondition `json:"conditions,omitempty"`
	Addresses   []corev1.NodeAddress   `json:"addresses,omitempty"`
	NodeInfo    corev1.NodeSystemInfo  `json:"nodeInfo"`
}

// nodeStatusPatch returns the patch that makes the status of have the wanted one, nil when it is and was sent within
// report.
func nodeStatusPatch(want, have *corev1.Node, report time.Duration, now time.Time) []byte {
	w, h := nodeStatusOf(want), nodeStatusOf(have)
	h.Capacity, h.Allocatable = common(h.Capacity, w.Capacity), common(h.Allocatable, w.Allocatable)
	h.NodeInfo.Swap = w.NodeInfo.Swap
	w.Conditions, h.Conditions = keepNodeTimes(w.Conditions, h.Conditions, report, now)
	changed := changes(w, h)
	if len(changed) == 0 {
		return nil
	}
	return encode(map[string]any{"status": changed})
}

// keepNodeTimes returns the wanted conditions with the times of those that are in the API with the same status, and what
// the API has of the wanted types. The heartbeat goes on once one of them is older than report, or from the future.
func keepNodeTimes(want, have []corev1.NodeCondition, report time.Duration, now time.Time) (kept, same []corev1.NodeCondition) {
	stale := false
	for _, w := range want {
		i := slices.IndexFunc(have, func(h corev1.NodeCondition) bool { return h.Type == w.Type })
		if i < 0 {
			kept = append(kept, w)
			continue
		}
		if have[i].Status == w.Status {
			w.LastTransitionTime = have[i].LastTransitionTime
		}
		age := now.Sub(have[i].LastHeartbeatTime.Time)
		stale = stale || age < -time.Second || age >= report // the API's times are whole seconds
		same, kept = append(same, have[i]), append(kept, w)
	}
	if stale {
		return kept, same
	}
	for i := range kept {
		if j := slices.IndexFunc(same, func(h corev1.NodeCondition) bool { return h.Type == kept[i].Type }); j >= 0 {
			kept[i].LastHeartbeatTime = same[j].LastHeartbeatTime
		}
	}
	return kept, same
}

func nodeStatusOf(n *corev1.Node) nodeStatus {
	s := n.Status
	return nodeStatus{Capacity: s.Capacity, Allocatable: s.Allocatable, Conditions: s.Conditions, Addresses: s.Addresses, NodeInfo: s.NodeInfo}
}

// common returns those of have that want has too: a kubelet may have told of more.
func common(have, want corev1.ResourceList) corev1.ResourceList {
	have = maps.Clone(have)
	maps.DeleteFunc(have, func(name corev1.ResourceName, _ resource.Quantity) bool { _, ours := want[name]; return !ours })
	return have
}
