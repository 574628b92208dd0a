package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	leasesPath = "/apis/coordination.k8s.io/v1/namespaces/" + corev1.NamespaceNodeLease + "/leases"
	// rivals renewals of the lease by somebody else, one after the other, are no accident.
	rivals = 3
)

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

// leaseObject returns the node's lease, renewed now. Its holder is called as a kubelet would call itself, so that one
// takes the lease over without a word.
func leaseObject(node string, uid types.UID, duration time.Duration, now time.Time) *lease {
	return &lease{
		TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
		ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: node,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: uid}}},
		Spec: leaseSpec{HolderIdentity: node, LeaseDurationSeconds: int(duration / time.Second), RenewTime: metav1.NewMicroTime(now)},
	}
}

// leaseKeeper renews the lease of the Node, and stands back while another program does.
type leaseKeeper struct {
	last     *lease // as the API server has it from us; nil: to be looked up
	failures int    // in a row
	said     string // of them
	lost     int    // times in a row that the lease was not as we had left it
	rival    bool   // somebody else renews it
	theirs   metav1.MicroTime
	since    time.Time // when theirs was first seen
}

// beat renews the lease and returns when to do so again. The error is for what ends the connection.
func (k *leaseKeeper) beat(ctx context.Context, m *Mirror, api *client, uid types.UID) (time.Duration, error) {
	err := k.renew(ctx, m, api, uid)
	switch {
	case err == nil:
		k.failures, k.said = 0, ""
		return m.c.Rates.Lease / renewals, nil
	case away(err) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
		return 0, err
	}
	k.failures++ // at the first start of a cluster the leases' namespace comes a moment later
	if k.failures > patience && k.said != err.Error() {
		k.said = err.Error()
		m.c.Log.Warn("lease cannot be renewed, the node will be taken for dead", "node", m.c.NodeName, "reason", k.said)
	}
	return max(m.pace.pause(k.failures, m.c.Now().Sub(m.started)), min(retryAfter(err), m.pace.polite)), nil
}

// renew writes the lease, unless another program does.
func (k *leaseKeeper) renew(ctx context.Context, m *Mirror, api *client, uid types.UID) error {
	path, now := leasesPath+"/"+m.c.NodeName, m.c.Now()
	next := leaseObject(m.c.NodeName, uid, m.c.Rates.Lease, now)
	looked := k.last == nil || k.rival
	if looked {
		var have lease
		err := api.get(ctx, path, &have)
		if isCode(err, http.StatusNotFound) {
			return k.wrote(m, api.post(ctx, leasesPath, next, &have), &have, looked)
		}
		if err != nil {
			return fmt.Errorf("renewing the lease: %w", err)
		}
		if k.rival && !k.abandoned(&have, m.c.Rates.Lease, now) {
			return nil
		}
		k.last = &have
	}
	next.ResourceVersion = k.last.ResourceVersion
	var have lease
	return k.wrote(m, api.put(ctx, path, next, &have), &have, looked)
}

// wrote notes what came of writing the lease, of which the latest version was looked up or remembered.
func (k *leaseKeeper) wrote(m *Mirror, err error, have *lease, looked bool) error {
	k.last = nil
	switch {
	case err == nil:
		k.last = have
		if !looked || k.rival {
			k.lost = 0
		}
		if k.rival {
			k.rival = false
			m.c.Log.Info("no other program claims this node any more", "node", m.c.NodeName)
			m.c.Refused("", "")
		}
		return nil
	case isCode(err, http.StatusConflict):
		if k.lost++; k.lost < rivals {
			break
		}
		k.rival, k.theirs = true, metav1.MicroTime{}
		reason := "another program renews this node's lease and reports its status: does a kubelet run under this node's name? Its Node and Lease are left to it"
		m.c.Log.Warn(reason, "node", m.c.NodeName)
		m.c.Refused("", reason)
		return nil
	}
	return fmt.Errorf("renewing the lease: %w", err)
}

// abandoned tells whether a rival's lease has run out. Their clock may not be ours: what counts is how long it has stood.
func (k *leaseKeeper) abandoned(have *lease, duration time.Duration, now time.Time) bool {
	if !have.Spec.RenewTime.Equal(&k.theirs) {
		k.theirs, k.since = have.Spec.RenewTime, now
		return false
	}
	return now.Sub(k.since) >= duration
}
