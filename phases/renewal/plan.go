package renewal

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases/pki"
)

// Task is a renewal that is due, and why.
type Task struct {
	Item
	Why string
}

// Plan says which items are renewed without being asked for, and what keeps others from it although they are due. Only
// what slipway made is: owns tells.
//
//	its authority                     what is due
//	key here, and valid now           renewed, if the new one ends later than the old one
//	key kept elsewhere                told
//	not valid yet, expired, damaged   told: nothing that it signs would be good, or the clock is wrong
//
// The authority's own life is what a clock must agree with. A clock that is wrong within it does no lasting harm: a
// certificate that was issued in a future is not valid yet once the clock is right again, and with that due.
func Plan(items []Item, owns func(path string) bool, authority func(name string) (*pki.Authority, error), now time.Time) (tasks []Task, held []string) {
	for _, it := range items {
		why := Due(it, now)
		if why == "" || !owns(it.Path) {
			continue
		}
		a, err := authority(it.CA)
		switch {
		case err != nil:
			held = append(held, fmt.Sprintf("%s cannot be renewed: %s: %v", it.Name, why, err))
		case a.Key == nil:
			held = append(held, fmt.Sprintf("%s cannot be renewed: %s, and %s is not here; sign it where that key is kept", it.Name, why, a.KeyPath))
		case !gains(it, a, now):
			held = append(held, fmt.Sprintf("%s cannot be renewed: its authority ends on %s; slipway certs rotate-ca --authority %s replaces it", it.Name, date(a.Certs[0].NotAfter), it.CA))
		default:
			tasks = append(tasks, Task{it, why})
		}
	}
	return tasks, held
}

// gains tells whether a new certificate would be better than the one that is there. Near the end of its authority each
// would be shorter than the one before, and none would last longer.
func gains(it Item, a *pki.Authority, now time.Time) bool {
	if now.Before(it.Cert.NotBefore) {
		return true
	}
	end := now.Add(pki.Life(it.Cert))
	if last := a.Certs[0].NotAfter; end.After(last) {
		end = last
	}
	return end.After(it.Cert.NotAfter)
}

// Stale returns the pods that were started before a certificate of slipway's that they use was issued: they have
// another one in use. started has when each pod that runs was started, by the name of its manifest, to the second.
func Stale(items []Item, owns func(path string) bool, started map[string]time.Time) []string {
	var pods []string
	for _, it := range items {
		if it.Cert == nil || !owns(it.Path) {
			continue
		}
		for _, pod := range it.Pods {
			if at, runs := started[pod]; runs && at.Before(pki.IssuedAt(it.Cert)) && !slices.Contains(pods, pod) {
				pods = append(pods, pod)
			}
		}
	}
	return pods
}

// NextLook is when something will be due that is not yet, no later than latest.
func NextLook(items []Item, now, latest time.Time) time.Time {
	for _, it := range items {
		if it.Cert == nil {
			continue
		}
		if at := DueAt(it.Cert); at.After(now) && at.Before(latest) {
			latest = at
		}
	}
	return latest
}

// Pod is the state of one pod of the control plane.
type Pod struct {
	Name  string // of its manifest
	Ready bool
	Needs []string // pods without which it cannot be ready
}

// MayRestart says what speaks against the restart of a pod now; "" for nothing. Never are two down at once: another pod
// that is not ready holds the restart up, unless it is stale itself, so that it may well be its certificates that keep
// it, or cannot be ready without the pod.
func MayRestart(pod string, pods []Pod, stale []string) string {
	var down []string
	for _, p := range pods {
		if p.Name == pod || p.Ready || slices.Contains(stale, p.Name) || slices.Contains(p.Needs, pod) {
			continue
		}
		if slices.ContainsFunc(p.Needs, func(need string) bool { return slices.Contains(stale, need) }) {
			continue // it may get well with what it needs
		}
		down = append(down, p.Name)
	}
	if len(down) == 0 {
		return ""
	}
	return strings.Join(down, ", ") + " is not ready"
}
