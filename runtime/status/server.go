package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// shutdownGrace is how long open requests may go on after the supervisor was told to end.
const shutdownGrace = 500 * time.Millisecond

// Server is the supervisor's local API, on a unix socket that only root can open:
//
//	GET /healthz                  ok
//	GET /pods[?watch=true]        v1.PodList, as the kubelet serves it; with watch one list per line, at every change
//	GET /problems                 the manifests that are not taken
//	GET /configz                  the KubeletConfiguration in force, as JSON
//	GET /logs?pod=NS/NAME&container=C&tail=N   the last lines of the newest attempt, decoded
type Server struct {
	Board   *Board
	PodLogs string // /var/log/pods
	Config  []byte // JSON
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
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /pods", s.pods)
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
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *Server) pods(w http.ResponseWriter, r *http.Request) {
	list, _, changed := s.Board.Pods()
	if r.URL.Query().Get("watch") != "true" {
		writeJSON(w, list)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	lines := json.NewEncoder(w)
	for {
		if lines.Encode(list) != nil || http.NewResponseController(w).Flush() != nil {
			return // the reader is gone
		}
		if Wait(r.Context(), changed) != nil {
			return
		}
		list, _, changed = s.Board.Pods()
	}
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	namespace, pod, ok := strings.Cut(q.Get("pod"), "/")
	tail, err := strconv.Atoi(q.Get("tail"))
	if !ok || err != nil || tail < 1 || strings.ContainsAny(pod+namespace+q.Get("container"), `*?[\/`) {
		http.Error(w, "usage: /logs?pod=NAMESPACE/NAME&container=NAME&tail=LINES", http.StatusBadRequest)
		return
	}
	path, err := LatestLog(s.PodLogs, namespace, pod, q.Get("container"))
	switch {
	case errors.Is(err, ErrNoLog):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	lines, err := Tail(path, tail)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
}
