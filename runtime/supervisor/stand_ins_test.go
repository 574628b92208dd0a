package supervisor

import (
	"context"
	"strings"
	"sync"

	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// files stands for the host's watched files.
type files struct {
	mu      sync.Mutex
	prints  map[string]string // by full name
	changed func(string)
}

func (f *files) Watch(name string, paths []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(paths) == 0 {
		delete(f.prints, name)
	} else if f.prints[name] == "" {
		f.prints[name] = "first"
	}
}

func (f *files) Unwatch(name string) { f.Watch(name, nil) }

func (f *files) Fingerprint(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.prints[name], nil
}

func (f *files) set(name, print string) {
	f.mu.Lock()
	f.prints[name] = print
	f.mu.Unlock()
	f.changed(name)
}

func (f *files) Close() {}

// feed is a source of manifests that the test holds in its hand.
type feed struct {
	next chan manifest.Snapshot
	last *manifest.Snapshot // delivered first to the next supervisor too
}

func newFeed() *feed { return &feed{next: make(chan manifest.Snapshot)} }

func (f *feed) Run(ctx context.Context, deliver func(manifest.Snapshot)) error {
	if f.last != nil {
		deliver(*f.last)
	}
	for {
		select {
		case snap := <-f.next:
			deliver(snap)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cgroups stands for a host's.
type cgroups struct {
	mu    sync.Mutex
	there map[string]podspec.CgroupResources
	busy  error
	held  map[string]chan struct{} // closed when a cgroup may be made; fixed before the start
}

func (c *cgroups) Ensure(path string, r podspec.CgroupResources) error {
	if held := c.held[path]; held != nil {
		<-held
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.there[path] = r
	return nil
}

func (c *cgroups) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.there[path]; ok && c.busy != nil {
		return c.busy
	}
	delete(c.there, path)
	return nil
}

// list is the pods' cgroups, without those of the classes.
func (c *cgroups) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for path := range c.there {
		if strings.Contains(path, "/pod") {
			out = append(out, path)
		}
	}
	return out
}
