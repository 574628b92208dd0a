package logrotate

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

const (
	stampFormat = "20060102-150405"
	gzipSuffix  = ".gz"
	tmpSuffix   = ".tmp"
)

// File is one file of a log's directory.
type File struct {
	Name string
	Size int64 // bytes
}

// Plan is what to do about one log. All are names in the log's directory.
type Plan struct {
	// Rotate is the name that the log is moved to; "" leaves it. What to remove then follows from another plan, so that
	// a rotation that fails costs no older part.
	Rotate string
	Remove []string
	// Compress is in the order of use: the newest first, since the oldest is the next to be removed anyway.
	Compress []string
}

// part is what was rotated out at one time, in up to three files.
type part struct {
	stamp            string
	plain, gzip, tmp bool
	size             int64
}

// Plan decides about the log of that name from the files of its directory. Files that are named otherwise than the
// parts of this log are left alone. The parts named in busy are being compressed at this moment.
func (p Policy) Plan(log string, files []File, busy map[string]bool, now time.Time) Plan {
	parts, size := partsOf(log, files)
	plan := Plan{}
	if p.MaxSize > 0 && size >= p.MaxSize {
		plan.Rotate = log + "." + nextStamp(parts, now)
	}
	total := size
	for _, part := range parts {
		total += part.size
	}
	for i, part := range parts {
		name := log + "." + part.stamp
		newest := i == len(parts)-1
		if part.tmp && !busy[name] {
			plan.Remove = append(plan.Remove, name+tmpSuffix) // of a compression that was cut short
		}
		if !newest && (len(parts)-i > p.MaxFiles-1 || total > p.MaxSize*int64(p.MaxFiles)) {
			total -= part.size
			plan.Remove = append(plan.Remove, part.files(name)...)
			continue
		}
		switch {
		case busy[name]:
		case part.plain && part.gzip:
			plan.Remove = append(plan.Remove, name) // compressed, and not removed then
		case part.plain && !newest:
			// Readers may not have come to the end of the newest, nor may the runtime.
			plan.Compress = append(plan.Compress, name)
		}
	}
	slices.Reverse(plan.Compress)
	return plan
}

func (p part) files(name string) []string {
	var out []string
	if p.plain {
		out = append(out, name)
	}
	if p.gzip {
		out = append(out, name+gzipSuffix)
	}
	return out
}

// partsOf returns the parts of a log, the oldest first, and the size of the log itself.
func partsOf(log string, files []File) (parts []part, size int64) {
	byStamp := map[string]*part{}
	for _, f := range files {
		if f.Name == log {
			size = f.Size
			continue
		}
		rest, ours := strings.CutPrefix(f.Name, log+".")
		stamp, suffix := rest, ""
		if len(rest) > len(stampFormat) {
			stamp, suffix = rest[:len(stampFormat)], rest[len(stampFormat):]
		}
		if _, err := time.Parse(stampFormat, stamp); !ours || err != nil {
			continue
		}
		p := byStamp[stamp]
		if p == nil {
			p = &part{stamp: stamp}
		}
		switch suffix {
		case "":
			p.plain = true
		case gzipSuffix:
			p.gzip = true
		case tmpSuffix:
			p.tmp = true
		default:
			continue
		}
		p.size += f.Size
		byStamp[stamp] = p
	}
	for _, p := range byStamp {
		parts = append(parts, *p)
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.stamp, b.stamp) })
	return parts, size
}

// nextStamp is the time now, or one second after the newest part where that is later: two rotations in one second must
// not have one name, and after the clock was set back the newest part must not look like the oldest.
func nextStamp(parts []part, now time.Time) string {
	stamp := now.Format(stampFormat)
	if len(parts) == 0 || parts[len(parts)-1].stamp < stamp {
		return stamp
	}
	newest, err := time.Parse(stampFormat, parts[len(parts)-1].stamp) // in UTC, which has no hour twice
	if err != nil {
		return stamp // no part has such a stamp
	}
	return newest.Add(time.Second).Format(stampFormat)
}
