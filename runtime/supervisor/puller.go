package supervisor

import (
	"context"
	"errors"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// errVanished is a pull that the runtime says has succeeded, without an image to show for it.
var errVanished = errors.New("the image was pulled and is not in the runtime's store")

// puller pulls images for every pod of the node. Any goroutine may use it.
type puller struct {
	rt    Runtime
	slots chan struct{} // one for each pull that may be under way; nil for no limit
}

func newPuller(rt Runtime, most int) *puller {
	p := &puller{rt: rt}
	if most > 0 {
		p.slots = make(chan struct{}, most)
	}
	return p
}

// pull gets an image when its turn comes, and returns it as the store has it, with the time that the pull itself took:
// 0 when there was none, because the image got into the store while others were pulled. With again it is pulled all the
// same. A pull has no deadline but ctx's.
func (p *puller) pull(ctx context.Context, ref string, again bool) (found *runtimeapi.Image, took time.Duration, err error) {
	waited, err := p.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer p.leave()
	if waited && !again {
		if found, err = p.rt.ImageStatus(ctx, ref); found != nil || err != nil {
			return found, 0, err
		}
	}
	start := time.Now()
	if _, err = p.rt.PullImage(ctx, ref, nil); err != nil {
		return nil, 0, err
	}
	took = time.Since(start)
	found, err = p.rt.ImageStatus(ctx, ref)
	if found == nil && err == nil {
		err = errVanished
	}
	return found, took, err
}

// enter takes a slot, and tells whether that took time.
func (p *puller) enter(ctx context.Context) (waited bool, err error) {
	if p.slots == nil {
		return false, nil
	}
	select {
	case p.slots <- struct{}{}:
		return false, nil
	default:
	}
	select {
	case p.slots <- struct{}{}:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (p *puller) leave() {
	if p.slots != nil {
		<-p.slots
	}
}
