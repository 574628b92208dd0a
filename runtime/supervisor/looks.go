package supervisor

import (
	"context"
	"sync"
)

// loneLooks is how many workers list their own pod at the same time before further ones share a listing of everything:
// with fifty pods that change at once, a listing for each would cost the runtime more than the pods do.
const loneLooks = 2

// looks lists pods for their workers. Any goroutine may use it.
//
//	few at once ──► each lists by its pod's labels
//	more        ──► wait for the shared listing under way to end, then share the next one
//
// Nobody is given a listing that began before it was asked for.
type looks struct {
	rt       Runtime
	instance string

	mu    sync.Mutex
	lone  int        // listings by labels under way
	next  *lookAtAll // has not begun: may be joined
	under *lookAtAll // has begun
}

// lookAtAll is one listing of everything, for all who joined it before it began. done is closed when it has ended.
type lookAtAll struct {
	done chan struct{}
	pods map[string]listing // by full name
	err  error
}

// of lists what carries the labels of a full name.
func (l *looks) of(ctx context.Context, name string) listing {
	for {
		if l.enterAlone() {
			defer l.leaveAlone()
			return list(ctx, l.rt, name, l.instance)
		}
		look := l.join(ctx)
		select {
		case <-look.done:
		case <-ctx.Done():
			return listing{err: ctx.Err()}
		}
		switch {
		case look.err == nil:
			return look.pods[name]
		case ctx.Err() != nil || look.err != context.Canceled:
			return listing{err: look.err}
		}
		// Whoever made it has ended, and its listing with it: ask again.
	}
}

func (l *looks) enterAlone() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lone == loneLooks {
		return false
	}
	l.lone++
	return true
}

func (l *looks) leaveAlone() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lone--
}

// join returns the listing that begins next. The first who asks for it makes it, once the one under way has ended.
func (l *looks) join(ctx context.Context) *lookAtAll {
	l.mu.Lock()
	look, before := l.next, l.under
	if look != nil {
		l.mu.Unlock()
		return look
	}
	look = &lookAtAll{done: make(chan struct{})}
	l.next = look
	l.mu.Unlock()
	if before != nil {
		select {
		case <-before.done:
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	l.next, l.under = nil, look
	l.mu.Unlock()
	all := list(ctx, l.rt, "", l.instance)
	look.pods, look.err = all.byPod(), all.err
	if ctx.Err() != nil {
		look.err = context.Canceled
	}
	l.mu.Lock()
	if l.under == look {
		l.under = nil
	}
	l.mu.Unlock()
	close(look.done)
	return look
}
