package manifest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// AnnotationRestartOnChange names, separated by commas, the files and directories of the host whose change of content
// restarts the pod's containers: see WatchedPaths.
const AnnotationRestartOnChange = ours + "restart-on-change"

// ours is what the names of slipway's own annotations begin with.
const ours = "slipway.dev/"

// maxWatched bounds what one pod can make the supervisor read again and again.
const maxWatched = 32

// The bounds of slipway.dev/ready-within: less is shorter than a container needs to start, and who can wait longer than
// an hour does not need to be told.
const (
	minReadyWithin = time.Second
	maxReadyWithin = time.Hour
)

// WatchedPaths returns the absolute, cleaned paths of the pod's restart-on-change annotation, sorted and without
// repetition; nil when it has none. The pod is a valid one.
func WatchedPaths(pod *corev1.Pod) []string {
	var paths []string
	for _, p := range words(pod.Annotations[AnnotationRestartOnChange]) {
		paths = append(paths, path.Clean(p))
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// validateAnnotations holds slipway's own annotations to their form. A wrong value would change nothing, and nobody
// would know.
func validateAnnotations(annotations map[string]string, at *field.Path) field.ErrorList {
	checks := map[string]func(value string) string{
		AnnotationRestartOnChange: badWatched,
		ours + "start-after":      badNames,
		ours + "ready-within":     badReadyWithin,
		ours + "rollback": func(value string) string {
			if value == "true" || value == "false" {
				return ""
			}
			return `expected "true" or "false"`
		},
	}
	var errs field.ErrorList
	size := 0
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		size += len(key) + len(annotations[key])
		if !strings.HasPrefix(key, ours) {
			continue
		}
		if check, known := checks[key]; !known {
			errs = append(errs, field.Forbidden(at.Key(key), "unknown annotation of slipway's"+didYouMean(key, slices.Collect(maps.Keys(checks)))))
		} else if why := check(annotations[key]); why != "" {
			errs = append(errs, field.Invalid(at.Key(key), annotations[key], why))
		}
	}
	// Kubernetes v0.36.3 apimachinery/pkg/api/validation/objectmeta.go:35: 256 KiB in all.
	if size > 256<<10 {
		errs = append(errs, field.TooLong(at, "", 256<<10))
	}
	return errs
}

func badWatched(value string) string {
	paths := words(value)
	if len(paths) == 0 || len(paths) > maxWatched {
		return fmt.Sprintf("names %d paths, expected 1 to %d, separated by commas", len(paths), maxWatched)
	}
	for _, p := range paths {
		switch {
		case !path.IsAbs(p):
			return fmt.Sprintf("%q is not an absolute path", p)
		case slices.Contains(strings.Split(p, "/"), ".."):
			return fmt.Sprintf("%q contains '..'", p)
		case path.Clean(p) == "/":
			return "the whole host cannot be watched"
		case strings.ContainsRune(p, 0):
			return fmt.Sprintf("%q holds a zero byte", p)
		}
	}
	return ""
}

func badNames(value string) string {
	names := words(value)
	if len(names) == 0 {
		return "names no pod"
	}
	for _, name := range names {
		if why := validation.IsDNS1123Subdomain(name); len(why) > 0 {
			return fmt.Sprintf("%q is not a pod's name: %s", name, why[0])
		}
	}
	return ""
}

func badReadyWithin(value string) string {
	d, err := time.ParseDuration(value)
	if err != nil {
		return `expected a duration such as "90s" or "5m"`
	}
	if d < minReadyWithin || d > maxReadyWithin {
		return fmt.Sprintf("must be between %s and %s", minReadyWithin, maxReadyWithin)
	}
	return ""
}

// words are the parts of a list separated by commas, without the white space around them.
func words(list string) []string {
	var out []string
	for _, w := range strings.Split(list, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}
