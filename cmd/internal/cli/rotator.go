package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/nodes"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// rotator takes one authority through its stages on this node.
//
//	a stage: files ─► restarts ─► (nodes report) ─► cluster-info ─► (what the API server tells others) ─► mark of the stage removed
//
// What is in brackets comes where an authority is dropped.
//
// Each part may be repeated, and a stage that was interrupted is repeated from its first.
type rotator struct {
	*renewal.Rotation
	overlay  *artifact.Overlay
	manifest string // path of the controller manager's
	now      func() time.Time
	force    bool          // drop an authority whoever needs it
	patience time.Duration // for nodes to report
	suffix   string        // of commands that are shown, see global.suffix
	say      func(format string, args ...any)
	progress func(text string)

	// Below a root there is no cluster, and nothing that runs: these do nothing then.
	cluster func() (api kubeapi.API, self string, err error) // anew for each use, as the files that it reads change
	restart func(ctx context.Context, pods []string) error
	taken   func(ctx context.Context, manifest []byte) error // waits until the controller manager runs by it
}

// nothingToDo is a stage that has nothing to start from.
type nothingToDo struct{ text string }

func (n *nothingToDo) Error() string { return n.text }

// advance goes on to Switched from wherever it is.
func (r *rotator) advance(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	if stage != renewal.Switched {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	return r.change(ctx)
}

// begin brings it to Trusted. What is past that stays as it is.
func (r *rotator) begin(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	if stage == renewal.Switched {
		return &nothingToDo{"there is nothing to begin: " + stage.String()}
	}
	if stage == renewal.Settled {
		if err := r.commit(ctx, r.Prepare(r.now())); err != nil {
			return err
		}
	}
	if err := r.trustFormer(ctx); err != nil {
		return err
	}
	r.say("stage 1 of 3 is done: the next authority is made, and both are trusted here; the former signs")
	return nil
}

// change brings it from Trusted to Switched, or completes that.
func (r *rotator) change(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	if stage == renewal.Settled {
		return &nothingToDo{"no rotation has begun, or its first stage was interrupted; slipway certs rotate-ca begin comes first"}
	}
	if err := r.trustNext(ctx); err != nil {
		return err
	}
	r.say("stage 2 of 3 is done: the next authority signs, and both are trusted")
	if r.CA == "ca" {
		r.say("give workers and users the new %s, then drop the former authority: slipway certs rotate-ca finish%s", r.OwnPath(), r.suffix)
	} else {
		r.say("drop the former authority: slipway certs rotate-ca finish --authority %s%s", r.CA, r.suffix)
	}
	return nil
}

func (r *rotator) finish(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	ended, err := r.Ended()
	if err != nil {
		return err
	}
	if stage != renewal.Switched && !ended {
		return &nothingToDo{fmt.Sprintf("there is nothing to finish: it is %s", stage)}
	}
	if !ended {
		others, err := r.others(ctx)
		if err == nil {
			err = unshown(others)
		}
		switch {
		case err == nil:
		case !r.force:
			return err
		default:
			r.progress(fmt.Sprintf("going on by --force: %v", err))
		}
		if err := r.drop(ctx, others, r.trustNext); err != nil {
			return err
		}
	}
	if err := r.commit(ctx, r.Clean()); err != nil {
		return err
	}
	r.say("stage 3 of 3 is done: the former authority is trusted no more")
	return nil
}

func (r *rotator) undo(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	returning, err := r.Returning()
	if err != nil {
		return err
	}
	begun, err := r.Begun()
	if err != nil {
		return err
	}
	switch {
	case !begun:
		return &nothingToDo{"there is nothing to undo: no rotation has begun"}
	case stage == renewal.Switched || returning:
		if err := r.trustFormer(ctx); err != nil {
			return err
		}
		r.say("stage 2 is undone: the former authority signs again, and both are trusted")
		return nil
	}
	others, err := r.others(ctx)
	if err != nil {
		r.progress(fmt.Sprintf("the other nodes are not looked at: %v", err)) // they knew the former one before
	}
	if err := r.drop(ctx, others, r.trustFormer); err != nil {
		return err
	}
	if err := r.commit(ctx, r.Clean()); err != nil {
		return err
	}
	r.say("stage 1 is undone: the next authority is gone, the former is as before")
	return nil
}

// trustFormer brings everything here to Trusted.
func (r *rotator) trustFormer(ctx context.Context) error {
	if err := r.overlap(ctx, renewal.Trusted, r.Trust); err != nil {
		return err
	}
	return r.commit(ctx, r.Forget())
}

// trustNext brings everything here to Switched.
func (r *rotator) trustNext(ctx context.Context) error {
	return r.overlap(ctx, renewal.Switched, r.Switch)
}

// overlap brings everything here to a stage in which both authorities are trusted.
func (r *rotator) overlap(ctx context.Context, s renewal.Stage, plan func(time.Time) error) error {
	// Before the authority's file holds two certificates, the controller manager must sign from one that holds one.
	f, own, err := r.signing(renewal.Settled)
	if err == nil && string(own) == string(f.Data) {
		err = r.signFrom(ctx, s)
	}
	if err != nil {
		return err
	}
	if err := r.commit(ctx, plan(r.now())); err != nil {
		return err
	}
	if err := r.apply(ctx, s); err != nil {
		return err
	}
	return r.publish(ctx)
}

// drop has only the authority that signs trusted. Nodes that are alive must report after that, or back brings the overlap
// back. The files of the rotation stay.
func (r *rotator) drop(ctx context.Context, others []nodes.Node, back func(context.Context) error) error {
	if err := r.commit(ctx, r.Settle(r.now())); err != nil {
		return err
	}
	if err := r.apply(ctx, renewal.Settled); err != nil {
		return err
	}
	silent, err := r.silent(ctx, others)
	if err != nil {
		return err
	}
	if len(silent) == 0 {
		if err := r.publish(ctx); err != nil {
			return err
		}
		return r.retract(ctx)
	}
	if err := back(ctx); err != nil {
		return fmt.Errorf("%w, and bringing the overlap back failed: %w", shutOut(silent), err)
	}
	return withHint(fmt.Errorf("%w: both are trusted again", shutOut(silent)), nodeSteps)
}

// apply restarts what reads the files of a stage, one after the other, the controller manager with where it signs from.
func (r *rotator) apply(ctx context.Context, s renewal.Stage) error {
	f, next, err := r.signing(s)
	if err != nil {
		return err
	}
	pods := r.Pods()
	at := slices.Index(pods, plane.ControllerManager)
	if at < 0 || string(next) == string(f.Data) {
		return r.restart(ctx, pods)
	}
	if err := r.restart(ctx, pods[:at]); err != nil {
		return err
	}
	if err := r.signFrom(ctx, s); err != nil { // a new version of its manifest, which is a restart
		return err
	}
	return r.restart(ctx, pods[at+1:])
}

// signing returns the controller manager's manifest, and what it is at a stage; nothing where it is not run here.
func (r *rotator) signing(s renewal.Stage) (f artifact.File, next []byte, err error) {
	f, err = r.overlay.ReadFile(r.manifest)
	if errors.Is(err, fs.ErrNotExist) {
		return artifact.File{}, nil, nil
	}
	return f, r.SigningManifest(f.Data, s), err
}

// signFrom has the controller manager sign from the files of a stage; nothing is done where it does.
func (r *rotator) signFrom(ctx context.Context, s renewal.Stage) error {
	f, next, err := r.signing(s)
	if err != nil || string(next) == string(f.Data) {
		return err
	}
	f.Data = next
	if err := r.commit(ctx, r.overlay.Put(f)); err != nil {
		return err
	}
	return r.taken(ctx, next)
}

// commit writes what was planned, all of it, and nothing where the planning failed.
func (r *rotator) commit(ctx context.Context, planned error) error {
	if planned != nil {
		return planned
	}
	_, err := r.overlay.Commit(ctx)
	return err
}

// answerTimeout bounds what is asked of the API server, which is ready unless the control plane is down.
const answerTimeout = 20 * time.Second

// ask calls the API server, within the time that it has.
func (r *rotator) ask(ctx context.Context, call func(ctx context.Context, api kubeapi.API, self string) error) error {
	api, self, err := r.cluster()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("gave up after %s", answerTimeout))
	defer cancel()
	return call(ctx, api, self)
}

// publish puts what is trusted into cluster-info, from which joining machines have it. It is the cluster's own authority
// that they know; the others do not leave the control plane.
func (r *rotator) publish(ctx context.Context) error {
	if r.CA != "ca" {
		return nil
	}
	bundle, err := r.Bundle()
	if err != nil {
		return err
	}
	err = r.ask(ctx, func(ctx context.Context, api kubeapi.API, _ string) error {
		return bootstraptoken.Publish(ctx, api, bundle, r.now(), func(report kubeapi.Report) { r.progress(report.Text) })
	})
	if err != nil {
		return fmt.Errorf("the files here are done, and joining machines are not told what to trust: %w; slipway status%s tells how the API server is", err, r.suffix)
	}
	return nil
}

// retract has the API server tell others no more to trust the authority that was dropped.
func (r *rotator) retract(ctx context.Context) error {
	if r.CA == "etcd-ca" {
		return nil // only etcd's clients and members know it
	}
	err := r.ask(ctx, func(ctx context.Context, api kubeapi.API, _ string) error {
		return r.Retract(ctx, api, func(report kubeapi.Report) { r.progress(report.Text) })
	})
	if err != nil {
		return fmt.Errorf("the files here are done, and aggregated API servers are still told to trust the authority that was dropped: %w; slipway status%s tells how the API server is", err, r.suffix)
	}
	return nil
}
