package mirror

import (
	"maps"
	"runtime"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// TaintKey keeps pods off a node that has no kubelet to start them. A node cannot change its own taints once it is
	// registered (NodeRestriction): only an administrator can take it away.
	TaintKey = "slipway.dev/static-pods-only"
	// readyReason is the reason of the Ready condition.
	readyReason  = "StaticPodsOnly"
	readyMessage = "slipway runs the static pods of this node; there is no kubelet to start any other pod"
	// statusEvery is how often an unchanged status is sent, as the kubelet's nodeStatusReportFrequency.
	statusEvery = 5 * time.Minute
)

func noSchedule() corev1.Taint {
	return corev1.Taint{Key: TaintKey, Effect: corev1.TaintEffectNoSchedule}
}
func noExecute() corev1.Taint {
	return corev1.Taint{Key: TaintKey, Effect: corev1.TaintEffectNoExecute}
}

// nodeObject returns the Node to register.
func nodeObject(c Config, now time.Time) *corev1.Node {
	labels := map[string]string{
		corev1.LabelHostname: c.NodeName, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH, // the kubelet writes them to this day
	}
	return &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: c.NodeName, Labels: labels},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{noSchedule(), noExecute()}, Unschedulable: true},
		Status: corev1.NodeStatus{
			Capacity: c.Capacity, Allocatable: c.Capacity, Addresses: addresses(c), NodeInfo: c.Info,
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: readyReason, Message: readyMessage,
				LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now),
			}},
		},
	}
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
// statusEvery.
func nodeStatusPatch(want, have *corev1.Node, now time.Time) []byte {
	w, h := nodeStatusOf(want), nodeStatusOf(have)
	h.Capacity, h.Allocatable = among(h.Capacity, w.Capacity), among(h.Allocatable, w.Allocatable)
	h.NodeInfo.Swap = w.NodeInfo.Swap
	h.Conditions = slices.DeleteFunc(slices.Clone(h.Conditions), func(c corev1.NodeCondition) bool { return c.Type != corev1.NodeReady })
	w.Conditions = slices.Clone(w.Conditions)
	if len(h.Conditions) == 1 {
		ready, old := &w.Conditions[0], h.Conditions[0]
		if old.Status == ready.Status {
			ready.LastTransitionTime = old.LastTransitionTime
		}
		if age := now.Sub(old.LastHeartbeatTime.Time); age >= 0 && age < statusEvery {
			ready.LastHeartbeatTime = old.LastHeartbeatTime
		}
	}
	changed := changes(w, h)
	if len(changed) == 0 {
		return nil
	}
	return encode(map[string]any{"status": changed})
}

func nodeStatusOf(n *corev1.Node) nodeStatus {
	s := n.Status
	return nodeStatus{Capacity: s.Capacity, Allocatable: s.Allocatable, Conditions: s.Conditions, Addresses: s.Addresses, NodeInfo: s.NodeInfo}
}

// among returns those of have that want has too: a kubelet may have told of more.
func among(have, want corev1.ResourceList) corev1.ResourceList {
	have = maps.Clone(have)
	maps.DeleteFunc(have, func(name corev1.ResourceName, _ resource.Quantity) bool { _, ours := want[name]; return !ours })
	return have
}

// lease is coordination.k8s.io/v1 Lease, of which nothing but this is needed.
type lease struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              leaseSpec `json:"spec"`
}

type leaseSpec struct {
	HolderIdentity       string           `json:"holderIdentity"`
	LeaseDurationSeconds int              `json:"leaseDurationSeconds"`
	RenewTime            metav1.MicroTime `json:"renewTime"`
}

const (
	leasesPath = "/apis/coordination.k8s.io/v1/namespaces/" + corev1.NamespaceNodeLease + "/leases"
	// leaseSeconds is the kubelet's nodeLeaseDurationSeconds.
	leaseSeconds = 40
)

// leaseObject returns the node's lease, renewed now. Its holder is called as a kubelet would call itself, so that one
// takes the lease over without a word.
func leaseObject(node string, uid types.UID, now time.Time) *lease {
	return &lease{
		TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: uid}}},
		Spec: leaseSpec{HolderIdentity: node, LeaseDurationSeconds: leaseSeconds, RenewTime: metav1.NewMicroTime(now)},
	}
}
