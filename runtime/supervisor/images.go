package supervisor

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// errNeverPull is an absent image that may not be pulled.
var errNeverPull = errors.New("the image is not in the runtime's store and its pull policy is Never")

// image is what this worker learned of an image reference.
type image struct {
	lifecycle.Image
	spec  podspec.Image
	end   context.CancelFunc // of the pull under way; nil when there is none
	fresh bool               // it is pulled whatever the store has
}

// ensureImage asks the store, and begins a pull where the policy says so. What is learned, a failed pull too, is what
// the next look shows; it is an error only when the runtime does not answer.
func (w *worker) ensureImage(ctx context.Context, a lifecycle.Action) error {
	if a.Pull == corev1.PullAlways {
		w.pull(ctx, a)
		return nil
	}
	found, err := w.s.c.Runtime.ImageStatus(ctx, a.Image)
	switch {
	case err != nil:
		return err
	case found != nil:
		w.learn(ctx, a.Image, found, nil)
		w.recordPresent(a)
	case a.Pull == corev1.PullNever:
		w.learn(ctx, a.Image, nil, errNeverPull)
		w.record(a.UID, a.Name, event.Warning, errImageNeverPull, "Container image %q is not present with pull policy of Never", a.Image)
	default:
		w.pull(ctx, a)
	}
	return nil
}

// pull begins a pull and returns. It ends with ctx, or when no wanted version uses the image any more.
func (w *worker) pull(ctx context.Context, a lifecycle.Action) {
	ctx, end := context.WithCancel(ctx)
	fresh := a.Pull == corev1.PullAlways
	w.mu.Lock()
	w.images[a.Image] = image{Image: lifecycle.Image{Pulling: true}, end: end, fresh: fresh}
	w.mu.Unlock()
	w.record(a.UID, a.Name, event.Normal, event.Pulling, "Pulling image %q", a.Image)
	w.pulls.Go(func() {
		defer end()
		asked := time.Now()
		found, took, err := w.s.puller.pull(ctx, a.Image, fresh)
		if ctx.Err() == nil {
			w.log.Info("pull ended", "image", a.Image, "took", took.Round(time.Millisecond).String(), "failed", err != nil)
			w.recordPulled(a, took, time.Since(asked), found.GetSize(), err)
		}
		w.learn(ctx, a.Image, found, err)
		w.order()
	})
}

// learn keeps what the runtime said of an image. A runtime that did not answer said nothing: it is asked again.
func (w *worker) learn(ctx context.Context, ref string, found *runtimeapi.Image, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil {
		return // nobody waits for it
	}
	if end := w.images[ref].end; end != nil {
		end()
	}
	switch {
	case found != nil:
		w.images[ref] = image{Image: lifecycle.Image{Present: true, ID: found.GetId()}, spec: podspec.ImageOf(found)}
	case cri.IsUnavailable(err):
		delete(w.images, ref)
	default:
		w.images[ref] = image{Image: lifecycle.Image{Err: err.Error(), FailedAt: w.s.c.Now()}}
	}
}

// stored makes the worker ask the store for the images that it could not get, or that are still on their way: somebody
// may have put them there.
func (w *worker) stored() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, im := range w.images {
		if im.awaited() {
			w.storeChanged = true
			w.order()
			return
		}
	}
}

// awaited tells whether an image that appears in the store is news.
func (im image) awaited() bool { return !im.Present && !im.fresh }

// askAgain asks the store for the images that are awaited, if it has changed.
func (w *worker) askAgain(ctx context.Context) error {
	w.mu.Lock()
	var refs []string
	for ref, im := range w.images {
		if w.storeChanged && im.awaited() {
			refs = append(refs, ref)
		}
	}
	w.storeChanged = false
	w.mu.Unlock()
	slices.Sort(refs)
	for _, ref := range refs {
		found, err := w.s.c.Runtime.ImageStatus(ctx, ref)
		if err != nil {
			w.stored() // at the next look
			return err
		}
		if found != nil {
			w.learn(ctx, ref, found, nil)
		}
	}
	return nil
}

// doubt forgets that the images are in the store: they are asked for again.
func (w *worker) doubt(refs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ref := range refs {
		if w.images[ref].Present {
			delete(w.images, ref)
		}
	}
}

// dropImages forgets the images that the wanted pod does not use, and ends their pulls. The caller holds mu.
func (w *worker) dropImages(want *manifest.StaticPod) {
	var used []string
	if want != nil {
		used = lifecycle.Images(want.Pod)
	}
	for ref, im := range w.images {
		if slices.Contains(used, ref) {
			continue
		}
		if im.end != nil {
			im.end()
		}
		delete(w.images, ref)
	}
}
