package containerd

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestExplainPull(t *testing.T) {
	for text, want := range map[string]error{
		`failed to resolve reference "r/x:1": failed to do request: Head "https://r/v2/x": dial tcp: lookup r: no such host`:                   ErrUnreachable,
		`failed to do request: Head "https://r/v2/x": dial tcp 192.0.2.1:443: connect: connection refused`:                                     ErrUnreachable,
		`failed to do request: Head "https://r/v2/x": dial tcp 192.0.2.1:443: i/o timeout`:                                                     ErrUnreachable,
		`failed to resolve reference "r/x:1": r/x:1: not found`:                                                                                ErrNotFound,
		`pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed`: ErrDenied,
		`unexpected status from HEAD request to https://r/v2/x/manifests/1: 403 Forbidden`:                                                     ErrDenied,
		`failed to commit: no space left on device`:                                                                                            nil,
	} {
		original := errors.New(text)
		got := explainPull(original)
		if !errors.Is(got, original) {
			t.Errorf("%v: the runtime's words are lost", got)
		}
		if want == nil && got != original || want != nil && !errors.Is(got, want) {
			t.Errorf("%s\ngot  %v\nwant %v", text, got, want)
		}
	}
	if got := explainPull(fmt.Errorf("pulling: %w", status.Error(codes.NotFound, "gone"))); !errors.Is(got, ErrNotFound) {
		t.Errorf("by its code: %v", got)
	}
	if explainPull(nil) != nil {
		t.Error("an error out of nothing")
	}
}

func TestTransfersAddUp(t *testing.T) {
	var x transfers
	for i, step := range []struct {
		now         []content.Status
		done, total int64
		changed     bool
	}{
		{nil, 0, 0, false},
		{[]content.Status{{Ref: "a", Offset: 10, Total: 100}}, 10, 100, true},
		{[]content.Status{{Ref: "a", Offset: 10, Total: 100}}, 10, 100, false},
		{[]content.Status{{Ref: "a", Offset: 50, Total: 100}, {Ref: "b", Offset: 5, Total: 20}}, 55, 120, true},
		{[]content.Status{{Ref: "b", Offset: 6, Total: 20}}, 106, 120, true}, // a is complete
		{nil, 120, 120, true},
		{nil, 120, 120, false},
	} {
		done, total, changed := x.look(step.now)
		if done != step.done || total != step.total || changed != step.changed {
			t.Errorf("step %d: %d of %d, changed %v; want %+v", i, done, total, changed, step)
		}
	}
}
