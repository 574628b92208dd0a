package mirror

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ensureNode registers the Node or brings the registered one up to date, and returns its uid.
func (m *Mirror) ensureNode(ctx context.Context, api *client) (types.UID, error) {
	const all = "/api/v1/nodes"
	path := all + "/" + m.c.NodeName
	now := m.c.Now()
	want := nodeObject(m.c, now)
	var have corev1.Node
	err := api.get(ctx, path, &have)
	if isCode(err, http.StatusNotFound) {
		if err = api.post(ctx, all, want, &have); err == nil {
			m.c.Log.Info("node registered", "node", m.c.NodeName, "taint", TaintKey)
		}
	}
	if err != nil {
		return "", fmt.Errorf("registering the node: %w", err)
	}
	if have.DeletionTimestamp != nil {
		return "", fmt.Errorf("registering the node: the Node %s is being deleted", m.c.NodeName)
	}
	if !m.warned && !keepsPodsAway(&have) {
		m.warned = true
		m.c.Log.Warn("node was registered by another program, without slipway's taint; it may not add that itself", "node", m.c.NodeName,
			"hint", fmt.Sprintf("kubectl taint node %s %s=:NoSchedule %s=:NoExecute", m.c.NodeName, TaintKey, TaintKey))
	}
	if patch := nodePatch(want, &have); patch != nil {
		if err := api.patch(ctx, path, patch, nil); err != nil {
			return "", fmt.Errorf("updating the node: %w", err)
		}
	}
	if patch := nodeStatusPatch(want, &have, now); patch != nil {
		if err := api.patch(ctx, path+"/status", patch, nil); err != nil {
			return "", fmt.Errorf("updating the node's status: %w", err)
		}
	}
	return have.UID, nil
}

// heartbeat renews the lease and looks after the Node until ctx ends or the API server is away. It tells nodes the uid
// of a Node that was deleted and had to be registered again.
func (m *Mirror) heartbeat(ctx context.Context, api *client, creds *credentials, uid types.UID, nodes chan<- types.UID) error {
	var last *lease
	var said string
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		pause := m.pace.heartbeat
		var err error
		if last, err = m.renew(ctx, api, uid, last); err == nil {
			failures, said = 0, ""
		} else if away(err) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		} else {
			failures++ // at the first start of a cluster the leases' namespace comes a moment later
			pause = m.pace.pause(failures, m.c.Now().Sub(m.started))
			if failures > patience && said != err.Error() {
				said = err.Error()
				m.c.Log.Warn("lease cannot be renewed, the node will be taken for dead", "node", m.c.NodeName, "reason", said)
			}
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if creds.renewed() {
			return errRenewed
		}
		now, err := m.ensureNode(ctx, api)
		if err != nil {
			return err
		}
		if now != uid {
			uid, last = now, nil
			select {
			case nodes <- uid:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// renew writes the lease and returns it as the API server has it, or nil when it must be looked up again.
func (m *Mirror) renew(ctx context.Context, api *client, uid types.UID, last *lease) (*lease, error) {
	path := leasesPath + "/" + m.c.NodeName
	next := leaseObject(m.c.NodeName, uid, m.c.Now())
	var now lease
	if last == nil {
		var have lease
		err := api.get(ctx, path, &have)
		if isCode(err, http.StatusNotFound) {
			if err = api.post(ctx, leasesPath, next, &now); err == nil {
				return &now, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("renewing the lease: %w", err)
		}
		last = &have
	}
	next.ResourceVersion = last.ResourceVersion
	if err := api.put(ctx, path, next, &now); err != nil {
		return nil, fmt.Errorf("renewing the lease: %w", err)
	}
	return &now, nil
}
