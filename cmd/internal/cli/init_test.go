package cli

import (
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/apply"
)

func TestInitBesideAnInterruptedApply(t *testing.T) {
	forward := &apply.Record{Began: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	back := *forward
	back.Reason = "it was not ready"
	const refused = "an apply that was begun on 2026-11-28 12:00:00 was interrupted: init would write over what it has changed, and it could not be taken back any more"
	for name, tc := range map[string]struct {
		record *apply.Record
		only   []string
		hint   string // "" is let through
	}{
		"no apply":                       {nil, nil, ""},
		"init":                           {forward, nil, "go on with: slipway apply --instance b --config FILE\ntake it back with: slipway apply --instance b --take-back"},
		"on its way back":                {&back, nil, "go on taking it back with: slipway apply --instance b --take-back"},
		"a phase that writes":            {forward, []string{"control-plane/scheduler"}, "go on with: slipway apply --instance b --config FILE\ntake it back with: slipway apply --instance b --take-back"},
		"what the apply needs to go on":  {forward, []string{"supervisor/supervise"}, ""},
		"the whole of what it needs":     {forward, []string{"supervisor"}, ""},
		"what it needs, and another one": {forward, []string{"supervisor", "etcd"}, "go on with: slipway apply --instance b --config FILE\ntake it back with: slipway apply --instance b --take-back"},
	} {
		err := besideApply(tc.record, tc.only, " --instance b")
		got := ""
		if h, ok := err.(*hinted); ok {
			got = h.hint
		}
		if (err == nil) != (tc.hint == "") || got != tc.hint || err != nil && err.Error() != refused {
			t.Errorf("%s: %v, hint %q", name, err, got)
		}
	}
}
