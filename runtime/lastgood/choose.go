package lastgood

import "github.com/slipway-k8s/slipway/runtime/manifest"

// Choice is which version of a pod to run.
type Choice struct {
	Run      *manifest.StaticPod // nil: none
	Rejected *Rejection          // Run stands in for this version; nil when Run is what the source wants
	Forgive  bool                // the stored rejection is over: call Store.Forgive
}

// Choose decides between what the source wants now, nil for nothing, and what is stored of the pod. The version that
// was rejected is replaced by the good one. Any other version is run, which ends the rejection, and so is a version
// that does not want to be rolled back.
func Choose(want *manifest.StaticPod, stored Record) Choice {
	rejected, good := stored.Rejected, stored.Good
	switch {
	case rejected == nil:
		return Choice{Run: want}
	case want == nil:
		return Choice{} // it may come back as it was; see Store.Forget
	case Version(want) != rejected.Version, !RollsBack(want.Pod), good == nil, Version(good) == rejected.Version:
		return Choice{Run: want, Forgive: true}
	}
	if good.Source != want.Source {
		moved := *good
		moved.Source = want.Source
		good = &moved
	}
	return Choice{Run: good, Rejected: rejected}
}

// Replaces tells whether a version that was given up is to be rejected for the stored one: it wants to be rolled back,
// and there is another version to return to.
func Replaces(stored Record, want *manifest.StaticPod) bool {
	return want != nil && RollsBack(want.Pod) && stored.Good != nil && Version(stored.Good) != Version(want)
}
