package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// importRecord is beside the store of slipway's own containerd; reset removes both.
func (l *Live) importRecord() string { return filepath.Join(l.paths.State, "imported.json") }

// EnsureImages keeps the order store, archives, registry. An archive goes in when it is new and holds anything that the
// store lacks, or when it holds a reference that is wanted and missing; see importable.
func (l *Live) EnsureImages(ctx context.Context, im Images, report func(Progress)) error {
	stored, err := l.images.List(ctx, im.Socket)
	if err != nil {
		return fmt.Errorf("listing images at %s: %w", im.Socket, err)
	}
	if err := l.importArchives(ctx, im, stored, report); err != nil {
		return err
	}
	if len(without(im.Refs, stored)) > 0 {
		if stored, err = l.images.List(ctx, im.Socket); err != nil {
			return fmt.Errorf("listing images at %s: %w", im.Socket, err)
		}
	}
	missing := without(im.Refs, stored)
	if len(missing) > 0 && !im.Pull {
		return &MissingImagesError{Missing: missing, Archives: im.Archives, Reason: "the pull policy forbids to ask the registry"}
	}
	if err := l.pull(ctx, im, missing, report); err != nil {
		return err
	}
	if im.Socket == l.paths.ContainerdSocket { // another runtime's images are not ours to mark
		if err := l.images.Pin(ctx, im.Socket, im.Refs); err != nil {
			return fmt.Errorf("keeping the images at %s from garbage collectors: %w", im.Socket, err)
		}
	}
	report(Progress{Text: fmt.Sprintf("%d images present", len(im.Refs)), Done: int64(len(im.Refs)), Total: int64(len(im.Refs)), Unit: "images"})
	return nil
}

func (l *Live) importArchives(ctx context.Context, im Images, stored []string, report func(Progress)) error {
	archives, err := listArchives(im.Archives)
	if err != nil || len(archives) == 0 {
		return err
	}
	record, err := readImported(l.files, l.importRecord())
	if err != nil {
		return err
	}
	before := record  // what is known at the start; never written
	var mu sync.Mutex // guards record: archives go in side by side
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU()) // unpacking is bound by the processor
	for _, a := range archives {
		known, isKnown := before.unchanged(im.Socket, a)
		if a.Refs = known.Refs; !isKnown {
			if a.Refs, err = l.images.Refs(a.Path); err != nil {
				return errors.Join(fmt.Errorf("%w; remove it from %s, or bring a whole one", err, im.Archives), group.Wait())
			}
		}
		if !importable(a.Refs, im.Refs, stored, isKnown) {
			continue
		}
		group.Go(func() error {
			digest, err := digestOf(a.Path)
			if err != nil {
				return err
			}
			_, isSame := before.same(im.Socket, digest)
			if importable(a.Refs, im.Refs, stored, isSame) {
				if err := l.importArchive(ctx, im.Socket, a, report); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			record = record.with(im.Socket, digest, a)
			return record.write(l.files, l.importRecord())
		})
	}
	return group.Wait()
}

func (l *Live) importArchive(ctx context.Context, socket string, a archive, report func(Progress)) error {
	began := time.Now()
	name := filepath.Base(a.Path)
	err := l.images.Load(ctx, socket, a.Path, func(done, total int64) {
		report(Progress{Text: "importing " + name, Done: done, Total: total, Unit: "B"})
	})
	if err != nil {
		return fmt.Errorf("importing image archive %q: %w", a.Path, err)
	}
	report(Progress{Text: fmt.Sprintf("imported %s: %s (%s)", name, strings.Join(a.Refs, ", "), seconds(time.Since(began)))})
	return nil
}

// importable decides over one archive. What the store has is used as it is; an archive that went in before goes in
// again only for a wanted reference, since anything else was removed from the store on purpose.
func importable(refs, wanted, stored []string, before bool) bool {
	absent := without(refs, stored)
	if before {
		return slices.ContainsFunc(absent, func(ref string) bool { return slices.Contains(wanted, ref) })
	}
	return len(absent) > 0
}

// without returns what of refs is not in the list, in order. Short names are the same as long ones.
func without(refs, list []string) []string {
	var rest []string
	held := map[string]bool{}
	for _, ref := range list {
		held[fullName(ref)] = true
	}
	for _, ref := range refs {
		if name := fullName(ref); !held[name] {
			held[name], rest = true, append(rest, ref)
		}
	}
	return rest
}

// fullName writes a reference out, as stores do and archives of docker do not: nginx is docker.io/library/nginx:latest.
func fullName(ref string) string {
	host, _, found := strings.Cut(ref, "/")
	switch {
	case !found:
		ref = "docker.io/library/" + ref
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		ref = "docker.io/" + ref
	}
	if !strings.ContainsAny(ref[strings.LastIndexByte(ref, '/'):], ":@") {
		ref += ":latest"
	}
	return ref
}

// parallelPulls is the kubelet's own habit for control planes: few large layers, one registry.
const parallelPulls = 3

func (l *Live) pull(ctx context.Context, im Images, missing []string, report func(Progress)) error {
	limit := parallelPulls
	if im.Serial {
		limit = 1
	}
	var group errgroup.Group // every image is tried, so that all that is missing is named at once
	group.SetLimit(limit)
	errs := make([]error, len(missing))
	for i, ref := range missing {
		group.Go(func() error {
			began := time.Now()
			errs[i] = l.images.Pull(ctx, im.Socket, ref, func(done, total int64) {
				report(Progress{Text: "pulling " + ref, Done: done, Total: total, Unit: "B"})
			})
			if errs[i] == nil {
				report(Progress{Text: fmt.Sprintf("pulled %s (%s)", ref, seconds(time.Since(began)))})
			}
			return nil
		})
	}
	group.Wait() //nolint:errcheck // errs holds them
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("pulling images: %w", err)
	}
	failed := &MissingImagesError{Archives: im.Archives}
	for i, err := range errs {
		if err != nil {
			failed.Missing = append(failed.Missing, missing[i])
			failed.Reason, failed.err = err.Error(), err
		}
	}
	if failed.Missing != nil {
		return failed
	}
	return nil
}

// MissingImagesError names images that are nowhere to be had, and how to bring them.
type MissingImagesError struct {
	Missing  []string
	Archives string // the directory that was searched
	Reason   string // why the registry was no help
	err      error
}

func (e *MissingImagesError) Unwrap() error { return e.err }

func (e *MissingImagesError) Error() string {
	return fmt.Sprintf("missing images: %s (%s); %s", strings.Join(e.Missing, ", "), e.Reason, BringImages(e.Archives))
}

// BringImages says the three ways to make images available.
func BringImages(archives string) string {
	return fmt.Sprintf("bring them in one of three ways: put docker or OCI archives into %s, load them with `slipway images load FILE`, "+
		"or make the registry reachable (another one: --image-repository)", archives)
}
