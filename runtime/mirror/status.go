package mirror

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// podStatus holds the fields of a status that are the supervisor's. Of the conditions only those that it sets: others
// may set more.
type podStatus struct {
	Phase                 corev1.PodPhase          `json:"phase,omitempty"`
	Conditions            []corev1.PodCondition    `json:"conditions,omitempty"`
	Reason                string                   `json:"reason,omitempty"`
	Message               string                   `json:"message,omitempty"`
	HostIP                string                   `json:"hostIP,omitempty"`
	HostIPs               []corev1.HostIP          `json:"hostIPs,omitempty"`
	PodIP                 string                   `json:"podIP,omitempty"`
	PodIPs                []corev1.PodIP           `json:"podIPs,omitempty"`
	StartTime             *metav1.Time             `json:"startTime,omitempty"`
	InitContainerStatuses []corev1.ContainerStatus `json:"initContainerStatuses,omitempty"`
	ContainerStatuses     []corev1.ContainerStatus `json:"containerStatuses,omitempty"`
}

func podStatusOf(s corev1.PodStatus) podStatus {
	return podStatus{
		Phase: s.Phase, Conditions: s.Conditions, Reason: s.Reason, Message: s.Message, HostIP: s.HostIP, HostIPs: s.HostIPs, PodIP: s.PodIP, PodIPs: s.PodIPs,
		StartTime: s.StartTime, InitContainerStatuses: s.InitContainerStatuses, ContainerStatuses: s.ContainerStatuses,
	}
}

// statusPatch returns the strategic merge patch that makes the status of h the wanted one, nil when it is that already.
// The times of conditions that did not change, and of the pod's start, stay as the API has them: the supervisor may
// have been started anew since.
func statusPatch(static corev1.PodStatus, h seen) []byte {
	want, have := podStatusOf(static), podStatusOf(h.status)
	if have.StartTime != nil {
		want.StartTime = have.StartTime
	}
	want.Conditions, have.Conditions = keepTimes(want.Conditions, have.Conditions)
	if slices.ContainsFunc(want.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
		want.Message = "" // the supervisor explains every state, the API only those that need it
	}
	changed := changes(want, have)
	if len(changed) == 0 {
		return nil
	}
	return encode(map[string]any{"metadata": map[string]types.UID{"uid": h.uid}, "status": changed})
}

// keepTimes returns the wanted conditions with the times of those that are in the API with the same status, and what
// the API has of the wanted types, in the wanted order.
func keepTimes(want, have []corev1.PodCondition) (kept, same []corev1.PodCondition) {
	for _, w := range want {
		if i := slices.IndexFunc(have, func(h corev1.PodCondition) bool { return h.Type == w.Type }); i >= 0 {
			if have[i].Status == w.Status {
				w.LastTransitionTime = have[i].LastTransitionTime
			}
			h := have[i]
			h.ObservedGeneration, h.LastProbeTime = w.ObservedGeneration, w.LastProbeTime // never set by the supervisor
			same = append(same, h)
		}
		kept = append(kept, w)
	}
	return kept, same
}

// changes compares two values field by field as JSON and returns what a strategic merge patch must say to turn have
// into want: null for a field that is to go.
func changes(want, have any) map[string]json.RawMessage {
	w, h := fields(want), fields(have)
	changed := map[string]json.RawMessage{}
	for name, value := range w {
		if !bytes.Equal(value, h[name]) {
			changed[name] = replacing(name, value)
		}
	}
	for name := range h {
		if _, stays := w[name]; !stays {
			changed[name] = json.RawMessage("null")
		}
	}
	return changed
}

// replacing marks those lists that the API server would merge by a key, although for us each is one value. Conditions
// are merged on purpose.
func replacing(name string, value json.RawMessage) json.RawMessage {
	switch name {
	case "hostIPs", "podIPs", "addresses":
		return slices.Concat(json.RawMessage(`[{"$patch":"replace"},`), value[1:])
	}
	return value
}

func fields(v any) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(encode(v), &m); err != nil {
		panic(fmt.Sprintf("mirror: reading back %T: %v", v, err)) // encode wrote an object a moment ago
	}
	return m
}

// encode marshals API types, which cannot fail.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("mirror: marshalling %T: %v", v, err))
	}
	return b
}
