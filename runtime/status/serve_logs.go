package status

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const logsUsage = "usage: /logs?pod=NAMESPACE/NAME&container=NAME&tail=LINES[&attempt=NUMBER|&previous=true][&since=TIME][&timestamps=true]"

// logs answers with the end of a log.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	of, options, err := logQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path, err := FindLog(s.PodLogs, of)
	switch {
	case errors.Is(err, ErrNoLog):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	begun := &beginning{ResponseWriter: w}
	if err := CopyLog(r.Context(), path, options, begun); err != nil && !begun.done {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func logQuery(q url.Values) (LogOf, LogOptions, error) {
	of := LogOf{Container: q.Get("container"), Attempt: NewestAttempt}
	var named bool
	of.Namespace, of.Pod, named = strings.Cut(q.Get("pod"), "/")
	usage := errors.New(logsUsage)
	o := LogOptions{Timestamps: q.Get("timestamps") == "true"}
	var err error
	if o.Tail, err = strconv.Atoi(q.Get("tail")); err != nil || o.Tail < 1 || !named || strings.ContainsAny(of.Pod+of.Namespace+of.Container, `*?[\/`) {
		return of, o, usage
	}
	if number := q.Get("attempt"); number != "" {
		if of.Attempt, err = strconv.Atoi(number); err != nil || of.Attempt < 0 {
			return of, o, usage
		}
	}
	if q.Get("previous") == "true" {
		of.Attempt = PreviousAttempt
	}
	if since := q.Get("since"); since != "" {
		if o.Since, err = time.Parse(time.RFC3339Nano, since); err != nil {
			return of, o, fmt.Errorf("since=%q: %w", since, err)
		}
	}
	return of, o, nil
}

// beginning remembers that something was answered, after which an error can no longer be.
type beginning struct {
	http.ResponseWriter
	done bool
}

func (b *beginning) Write(p []byte) (int, error) {
	b.done = b.done || len(p) > 0
	return b.ResponseWriter.Write(p)
}
