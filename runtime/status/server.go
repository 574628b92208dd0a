package status

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/slipway-k8s/slipway/runtime/event"
)

// shutdownGrace is how long open requests may go on after the supervisor was told to end.
const shutdownGrace = 500 * time.Millisecond

// maxWhy bounds the reason of a restart, in bytes: it goes into messages of one line.
const maxWhy = 200

// Errors that a Server.Restart returns, wrapped or not.
var (
	ErrNoPod        = errors.New("there is no such pod")
	ErrNothingRuns  = errors.New("no container of the pod runs")
	errNotSupported = errors.New("this supervisor cannot do that")
)

// Server is the supervisor's local API, on a unix socket that only root can open:
//
//	GET /healthz[?verbose]        ok, or with status 503 what is wrong
//	GET /pods[?watch=true]        v1.PodList, as the kubelet serves it; with watch one list per line, at every change
//	GET /status[?pod=NS/NAME][&watch=true]   Detail of every pod, or of one
//	GET /events[?since=N][&pod=NS/NAME][&watch=true]   what has happened; with watch one event per line
//	GET /problems                 the manifests that are not taken
//	GET /configz                  the KubeletConfiguration in force, as JSON
//	GET /logs?pod=NS/NAME&container=C&tail=N[&attempt=N|&previous=true][&since=TIME][&timestamps=true]   decoded
//	GET /metrics                  in the form of Prometheus
//	POST /restart?pod=NS/NAME[&why=TEXT]     204; 404 for no such pod, 409 when nothing of it runs
type Server struct {
	Board   *Board
	PodLogs string // /var/log/pods
	Config  []byte // JSON
	Events  *event.Log
	// Restart asks for a restart of the pod's running containers and returns at once. It may be nil.
	Restart func(pod, why string) error
	// Healthy says what is wrong with the supervisor, as Health.Check; nil is always well.
	Healthy func() error
	Metrics http.Handler // may be nil
}

// Listen makes the socket, replacing one that a dead supervisor left. The caller holds the supervisor's lock, so no
// live one can be behind it.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the socket's directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing a former socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("closing %q to others: %w", path, err)
	}
	return l, nil
}

// Serve answers requests until ctx ends, then waits a moment for those that are open.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(l)
	if stop() { // ctx goes on: the listener broke
		return fmt.Errorf("serving the local API: %w", err)
	}
	<-closed
	return nil
}

// Handler is the API without its socket.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /pods", func(w http.ResponseWriter, r *http.Request) {
		stream(w, r, func() (any, <-chan struct{}) { list, _, changed := s.Board.Pods(); return list, changed })
	})
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /events", s.events)
	mux.HandleFunc("GET /problems", func(w http.ResponseWriter, _ *http.Request) {
		_, problems, _ := s.Board.Pods()
		if problems == nil {
			problems = []Problem{}
		}
		writeJSON(w, problems)
	})
	mux.HandleFunc("GET /configz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(s.Config)
	})
	mux.HandleFunc("GET /logs", s.logs)
	mux.HandleFunc("POST /restart", s.restart)
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// stream answers with what look returns; with watch=true again whenever that is something else, one value per line.
func stream(w http.ResponseWriter, r *http.Request, look func() (any, <-chan struct{})) {
	v, changed := look()
	if r.URL.Query().Get("watch") != "true" {
		writeJSON(w, v)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	for last := []byte(nil); ; v, changed = look() {
		line, err := json.Marshal(v)
		if err != nil {
			return // it was encoded before
		}
		if !bytes.Equal(line, last) {
			last = line
			if _, err := w.Write(append(line, '\n')); err != nil || http.NewResponseController(w).Flush() != nil {
				return // the reader is gone
			}
		}
		if Wait(r.Context(), changed) != nil {
			return
		}
	}
}

// healthz answers 200 only while the supervisor does its work. With verbose it says so in lines.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	var err error
	if s.Healthy != nil {
		err = s.Healthy()
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(w, "[-]%s\n", strings.TrimRight(line, "\n"))
		}
	}
	if r.URL.Query().Has("verbose") {
		list, problems, _ := s.Board.Pods()
		fmt.Fprintf(w, "%d pods, %d manifests refused\n", len(list.Items), len(problems))
	}
	if err == nil {
		fmt.Fprintln(w, "ok")
	}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	pod := r.URL.Query().Get("pod")
	look := func() (any, <-chan struct{}) {
		all, changed := s.Board.Details()
		out := []Detail{}
		for _, d := range all {
			if pod == "" || d.Pod == pod {
				out = append(out, d)
			}
		}
		return out, changed
	}
	stream(w, r, look)
}

// restart asks for a restart. The supervisor does it in its own time.
func (s *Server) restart(w http.ResponseWriter, r *http.Request) {
	pod, why := r.URL.Query().Get("pod"), r.URL.Query().Get("why")
	if !strings.Contains(pod, "/") || len(why) > maxWhy || strings.ContainsFunc(why, unicode.IsControl) {
		http.Error(w, fmt.Sprintf("usage: POST /restart?pod=NAMESPACE/NAME[&why=ONE LINE OF AT MOST %d BYTES]", maxWhy), http.StatusBadRequest)
		return
	}
	err := errNotSupported
	if s.Restart != nil {
		err = s.Restart(pod, cmp.Or(why, "asked for"))
	}
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrNoPod):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, ErrNothingRuns):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, errNotSupported):
		http.Error(w, err.Error(), http.StatusNotImplemented)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
