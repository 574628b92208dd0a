package mirror

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// renewals is how often a lease is renewed within its duration. Kubernetes v1.36.3 pkg/kubelet/kubelet.go:194,
	// nodeLeaseRenewIntervalFraction 0.25.
	renewals = 4
	// unhealthyFor is how long starting pods must have been impossible before the Node says so: a runtime that is being
	// restarted is no news. Kubernetes v1.36.3 pkg/kubelet/kubelet.go, maxWaitForContainerRuntime.
	unhealthyFor = 30 * time.Second
	// checkWithin bounds the question whether pods can be started.
	checkWithin = 2 * time.Second
	// pressureFor is how long a pressure stays shown once it is over, as the kubelet's evictionPressureTransitionPeriod.
	pressureFor = 5 * time.Minute
)

// nodeKeeper is what is remembered of the Node between two looks at it.
type nodeKeeper struct {
	warned  bool // of a Node without our taint
	failing time.Time
	pressed [3]time.Time // when memory, disk and process ids were last short
	lease   leaseKeeper
}

// ensureNode registers the Node or brings the registered one up to date, and returns its uid.
func (m *Mirror) ensureNode(ctx context.Context, api *client) (types.UID, error) {
	path := nodesPath + "/" + m.c.NodeName
	now := m.c.Now()
	want := nodeObject(m.c, m.health(ctx, now), now)
	var have corev1.Node
	if err := m.lookUpNode(ctx, api, want, &have); err != nil {
		return "", fmt.Errorf("registering the node: %w", err)
	}
	if have.DeletionTimestamp != nil {
		return "", fmt.Errorf("registering the node: the Node %s is being deleted", m.c.NodeName)
	}
	if !m.node.warned && !keepsPodsAway(&have) {
		m.node.warned = true
		m.c.Log.Warn("node was registered by another program, without slipway's taint; it may not add that itself", "node", m.c.NodeName,
			"hint", fmt.Sprintf("kubectl taint node %s %s=:NoSchedule %s=:NoExecute", m.c.NodeName, TaintKey, TaintKey))
	}
	if m.node.lease.rival {
		return have.UID, nil // the Node is another's
	}
	if patch := nodePatch(want, &have); patch != nil {
		if err := api.patch(ctx, path, patch, nil); err != nil {
			return "", fmt.Errorf("updating the node: %w", err)
		}
	}
	if patch := nodeStatusPatch(want, &have, m.c.Rates.Report, now); patch != nil {
		if err := api.patch(ctx, path+"/status", patch, nil); err != nil {
			return "", fmt.Errorf("updating the node's status: %w", err)
		}
	}
	return have.UID, nil
}

const nodesPath = "/api/v1/nodes"

// lookUpNode reads the Node, which it registers where there is none.
func (m *Mirror) lookUpNode(ctx context.Context, api *client, want, have *corev1.Node) error {
	err := api.get(ctx, nodesPath+"/"+m.c.NodeName, have)
	if !isCode(err, http.StatusNotFound) {
		return err
	}
	if m.c.Unmanaged {
		return fmt.Errorf("registerNode is false in the KubeletConfiguration, and nobody else has registered it yet: %w", err)
	}
	if err := api.post(ctx, nodesPath, want, have); err != nil {
		return err
	}
	m.c.Log.Info("node registered", "node", m.c.NodeName, "taint", TaintKey)
	return nil
}

// health asks how this machine is. Pressure is shown for a while longer than it lasts, so that it does not flicker.
func (m *Mirror) health(ctx context.Context, now time.Time) health {
	var h health
	if m.c.Healthy != nil {
		ctx, cancel := context.WithTimeout(ctx, checkWithin)
		defer cancel()
		if err := m.c.Healthy(ctx); err == nil {
			m.node.failing = time.Time{}
		} else if m.node.failing.IsZero() {
			m.node.failing = now
		} else if now.Sub(m.node.failing) >= unhealthyFor {
			h.problem = err.Error()
		}
	}
	if m.c.Pressure == nil {
		return h
	}
	p := m.c.Pressure()
	for i, short := range []*bool{&p.Memory, &p.Disk, &p.PIDs} {
		last := &m.node.pressed[i]
		if *short {
			*last = now
		}
		*short = !last.IsZero() && now.Sub(*last) < pressureFor
	}
	h.pressure = p
	return h
}

// heartbeat renews the lease and looks after the Node until ctx ends, the API server is away, or the Node is another one
// than uid. doubt brings the next look forward.
func (m *Mirror) heartbeat(ctx context.Context, api *client, creds *credentials, uid types.UID, doubt <-chan struct{}) error {
	m.node.lease.last, m.node.lease.failures = nil, 0 // another connection may be to another API server
	renew := m.c.Now()
	look := renew.Add(m.c.Rates.Status)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if now := m.c.Now(); !now.Before(renew) {
			pause, err := m.node.lease.beat(ctx, m, api, uid)
			if err != nil {
				return err
			}
			renew = now.Add(pause)
		}
		if now := m.c.Now(); !now.Before(look) {
			if err := m.look(ctx, api, creds, uid); err != nil {
				return err
			}
			look = now.Add(m.c.Rates.Status)
		}
		now := m.c.Now()
		timer.Reset(max(0, min(renew.Sub(now), look.Sub(now))))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-doubt:
			look = m.c.Now()
		}
	}
}

// look brings the Node up to date and returns an error when the connection, or the Node, is not the one it was.
func (m *Mirror) look(ctx context.Context, api *client, creds *credentials, uid types.UID) error {
	if creds.renewed() {
		return errRenewed
	}
	now, err := m.ensureNode(ctx, api)
	if err == nil && now != uid {
		return errReplaced
	}
	return err
}
