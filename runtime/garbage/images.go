package garbage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/runtime/event"
)

// imagePeriod is the kubelet's. Kubernetes v1.36.3 pkg/kubelet/kubelet.go:233.
const imagePeriod = 5 * time.Minute

// Images removes images that nobody uses when they take too much of the disk. Every field but Events is set by the
// caller.
type Images struct {
	Policy Policy
	// List returns all images of the runtime.
	List func(ctx context.Context) ([]Image, error)
	// Used returns names or ids of the images that some container of the runtime, or its sandboxes, are made of.
	Used func(ctx context.Context) ([]string, error)
	// Wanted returns the images that the pods of this node name, in the version that is wanted and in the one that would
	// be returned to. It fails with ErrUnknown while not all of them are known.
	Wanted func(ctx context.Context) ([]string, error)
	// Protected are further images that stay.
	Protected []string
	Remove    func(ctx context.Context, id string) error
	// Dir returns a directory on the file system that images are unpacked on.
	Dir func(ctx context.Context) (string, error)
	// Usage looks at the file system of a directory. FileSystem does.
	Usage  func(dir string) (Usage, error)
	Events *event.Log

	records map[string]Record
	began   time.Time
}

// FileSystem tells how full the file system is that dir is on.
func FileSystem(dir string) (Usage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Usage{}, fmt.Errorf("looking at the file system of %s: %w", dir, err)
	}
	if st.Blocks == 0 {
		return Usage{}, fmt.Errorf("looking at the file system of %s: it has no capacity", dir)
	}
	size := uint64(st.Bsize)
	return Usage{Capacity: st.Blocks * size, Available: min(st.Bavail, st.Blocks) * size}, nil
}

// collect does one round. It fails when it cannot tell what may be removed: then it has removed nothing.
func (g *Images) collect(ctx context.Context, now time.Time, log *slog.Logger) error {
	images, err := g.List(ctx)
	if err != nil {
		return err
	}
	used, err := g.Used(ctx)
	if err != nil {
		return err
	}
	dir, err := g.Dir(ctx)
	if err != nil {
		return err
	}
	before, err := g.Usage(dir)
	if err != nil {
		return err
	}
	wanted, err := g.Wanted(ctx) // the last to be asked: a pod may have come meanwhile
	if err != nil {
		return err
	}
	kept := NamesOf(used, wanted, g.Protected)
	if g.records == nil {
		g.began = now
	}
	g.records = Note(g.records, images, kept, now)
	plan := g.Policy.Plan(before, images, g.records, kept, g.began, now)
	if len(plan.Old) == 0 && plan.Goal == 0 {
		return nil
	}
	return g.free(ctx, dir, before, plan, log)
}

// free removes what the plan says, and tells of it.
func (g *Images) free(ctx context.Context, dir string, before Usage, plan Removal, log *slog.Logger) error {
	r := reaper{Images: g, log: log, dir: dir, before: before, after: before}
	for _, image := range plan.Old {
		r.remove(ctx, image, "not used for "+g.Policy.MaxAge.String())
	}
	for _, image := range plan.Spare {
		// The runtime has removed an image's data by the time it answers; some file systems show the space later.
		if max(r.after.Available, before.Available+r.counted) >= plan.Goal {
			break
		}
		r.remove(ctx, image, fmt.Sprintf("the disk was %d %% full", before.Percent()))
	}
	r.tell(plan)
	return ctx.Err()
}

// reaper removes images and keeps count.
type reaper struct {
	*Images
	log           *slog.Logger
	dir           string
	before, after Usage
	removed       []string
	counted       uint64 // bytes, by the runtime's count of each image
	errs          []error
}

func (r *reaper) remove(ctx context.Context, image Image, why string) {
	if ctx.Err() != nil {
		return
	}
	name := image.ID
	if len(image.Refs) > 0 {
		name = image.Refs[0]
	}
	if err := r.Remove(ctx, image.ID); err != nil {
		r.errs = append(r.errs, err)
		return
	}
	r.removed = append(r.removed, name)
	r.counted += uint64(max(image.Size, 0))
	r.log.Info("image removed", "image", name, "why", why)
	if usage, err := r.Usage(r.dir); err == nil {
		r.after = usage
	}
}

func (r *reaper) tell(plan Removal) {
	freed := uint64(0)
	if r.after.Available > r.before.Available {
		freed = r.after.Available - r.before.Available
	}
	what := fmt.Sprintf("removed %d unused images and freed %s: the file system of %s was %d %% full, now %d %%",
		len(r.removed), inUnits(freed), r.dir, r.before.Percent(), r.after.Percent())
	if len(r.removed) > 0 {
		r.Events.Record(event.Event{Type: event.Normal, Reason: event.FreedDiskSpace, Message: what + " (" + strings.Join(r.removed, ", ") + ")"})
	}
	short := max(r.after.Available, r.before.Available+r.counted) < plan.Goal
	if short {
		what += fmt.Sprintf("; wanted are %d %%: look for other images in use, logs, volumes and files of others there", r.Policy.Low)
	}
	if short || len(r.errs) > 0 {
		if err := errors.Join(r.errs...); err != nil {
			what += "; " + strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		r.Events.Record(event.Event{Type: event.Warning, Reason: event.FailedToFreeSpace, Message: what})
		r.log.Warn("freeing the disk of images", "reason", what)
	}
}

// inUnits prints a number of bytes for people.
func inUnits(n uint64) string {
	const units = "KMGT"
	size, unit := float64(n), ""
	for i := 0; i < len(units) && size >= 1024; i++ {
		size, unit = size/1024, units[i:i+1]+"i"
	}
	if unit == "" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %sB", size, unit)
}
