package status

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/slipway-k8s/slipway/runtime/event"
)

// events answers with a list, or with watch=true with one event per line: first those that are known, then each as it
// happens. One that happens again comes again, with a higher count.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	since, err := strconv.ParseUint(q.Get("since"), 10, 64)
	if err != nil && q.Get("since") != "" {
		http.Error(w, "usage: /events[?since=NUMBER][&pod=NAMESPACE/NAME][&watch=true]", http.StatusBadRequest)
		return
	}
	of := func(all []event.Event) []event.Event {
		out := []event.Event{}
		for _, e := range all {
			since = e.Number
			if pod := q.Get("pod"); pod == "" || e.Pod == pod {
				out = append(out, e)
			}
		}
		return out
	}
	all, changed := s.Events.Since(since)
	if q.Get("watch") != "true" {
		writeJSON(w, of(all))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	lines := json.NewEncoder(w)
	for {
		for _, e := range of(all) {
			if lines.Encode(e) != nil {
				return // the reader is gone
			}
		}
		if http.NewResponseController(w).Flush() != nil || Wait(r.Context(), changed) != nil {
			return
		}
		all, changed = s.Events.Since(since)
	}
}
