package garbage

import (
	"cmp"
	"slices"
	"time"

	"github.com/distribution/reference"
)

// Image is one image of the runtime's store.
type Image struct {
	ID     string
	Refs   []string // all of its names, those with a tag and those with a digest
	Size   int64    // bytes, as the runtime counts them
	Pinned bool     // the runtime wants it kept
}

// Usage is how full a file system is.
type Usage struct {
	Capacity, Available uint64 // bytes; what only root may use does not count as available
}

// Percent is the used share, rounded up. A capacity of 0 is full.
func (u Usage) Percent() int {
	if u.Capacity == 0 {
		return 100
	}
	return 100 - int(min(u.Available, u.Capacity)*100/u.Capacity)
}

// Record is what is remembered of an image from one look to the next.
type Record struct {
	FirstSeen time.Time
	LastUsed  time.Time // zero: never since FirstSeen
}

// idle is since when the image is of no use, as far as it is known.
func (r Record) idle() time.Time {
	if r.LastUsed.After(r.FirstSeen) {
		return r.LastUsed
	}
	return r.FirstSeen
}

// Note returns the records as they are after a look: new images are there, those that are gone are not, and those that
// are kept count as used now. A kubelet counts only those of containers, so that the image of a pod that rests is gone
// sooner than that of one that ran.
func Note(records map[string]Record, images []Image, kept Names, now time.Time) map[string]Record {
	next := make(map[string]Record, len(images))
	for _, image := range images {
		r, known := records[image.ID]
		if !known {
			r.FirstSeen = now
		}
		if kept.Have(image) {
			r.LastUsed = now
		}
		next[image.ID] = r
	}
	return next
}

// Removal is what to remove.
type Removal struct {
	// Old are the images that nobody has used for the policy's MaxAge.
	Old []Image
	// Spare are images to remove one after the other, those first that were used least lately, until Goal bytes are
	// available. There are none while the file system is not too full.
	Spare []Image
	Goal  uint64
}

// Plan decides which images go. None goes that kept has a name of, or that is pinned. began is when the first look was:
// of the time before it nothing is known.
func (p Policy) Plan(usage Usage, images []Image, records map[string]Record, kept Names, began, now time.Time) Removal {
	candidates := slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return i.Pinned || kept.Have(i) })
	slices.SortFunc(candidates, func(a, b Image) int {
		x, y := records[a.ID], records[b.ID]
		return cmp.Or(x.LastUsed.Compare(y.LastUsed), x.FirstSeen.Compare(y.FirstSeen), cmp.Compare(a.ID, b.ID))
	})
	var out Removal
	full := usage.Percent() >= p.High && p.High < 100
	if full {
		out.Goal = usage.Capacity * uint64(100-p.Low) / 100
	}
	for _, image := range candidates {
		r := records[image.ID]
		switch {
		case p.MaxAge > 0 && now.Sub(began) > p.MaxAge && now.Sub(r.idle()) > p.MaxAge:
			out.Old = append(out.Old, image)
		case full && now.Sub(r.FirstSeen) >= p.MinAge:
			out.Spare = append(out.Spare, image)
		}
	}
	return out
}

// Names are names and ids of images. References are compared in their full form: nginx is docker.io/library/nginx:latest.
type Names map[string]bool

// NamesOf returns the set of the references.
func NamesOf(refs ...[]string) Names {
	n := Names{}
	for _, ref := range slices.Concat(refs...) {
		if ref != "" {
			n[ref], n[full(ref)] = true, true
		}
	}
	return n
}

// Have tells whether the set has the image under any of its names.
func (n Names) Have(i Image) bool {
	return n[i.ID] || slices.ContainsFunc(i.Refs, func(ref string) bool { return n[ref] || n[full(ref)] })
}

// full is the reference with registry and tag, or as it is when it is none.
func full(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return named.String()
}
