// Package metrics tells Prometheus how the static pods of this node fare.
package metrics

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// maxScrapes is how many scrapes are answered at once: nobody needs two, and each holds its text in memory.
const maxScrapes = 3

// Config is what a Metrics shows besides what it is told of.
type Config struct {
	Board *status.Board
	// RuntimeUp tells whether the container runtime answered when it was asked last. It must not block. It may be nil.
	RuntimeUp func() bool
	// CertificateEnd is when the first of the control plane's certificates ends, in Unix seconds; 0 where none is known.
	// It must not block. It may be nil.
	CertificateEnd func() int64
}

// Metrics counts what the supervisor does, and shows what its board holds at the moment of a scrape. It is safe for
// several goroutines. Use New; the methods of a nil *Metrics do nothing.
type Metrics struct {
	registry *prometheus.Registry

	actions   *prometheus.HistogramVec
	starts    prometheus.Histogram
	rollbacks prometheus.Counter
	rotations *prometheus.CounterVec
	gcRuns    *prometheus.CounterVec
	gcImages  prometheus.Counter
	gcBytes   prometheus.Counter
}

// New returns metrics that have counted nothing yet.
func New(c Config) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		actions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "slipway_action_duration_seconds", Help: "How long the actions of the supervisor took, by kind and result.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 30, 120}, // a start takes 50 ms, a stop up to its grace period, a pull minutes
		}, []string{"action", "result"}),
		starts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "slipway_pod_start_duration_seconds", Help: "From the first sight of a version of a pod until all of its containers run.",
			Buckets: []float64{.05, .1, .15, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		rollbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_rollbacks_total", Help: "Versions of manifests that were given up for the last good one.",
		}),
		rotations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_log_rotations_total", Help: "Rotations of container logs, by result.",
		}, []string{"result"}),
		gcRuns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_image_gc_runs_total", Help: "Collections of unused images, by result.",
		}, []string{"result"}),
		gcImages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_image_gc_images_total", Help: "Images that were removed because nothing uses them.",
		}),
		gcBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "slipway_image_gc_freed_bytes_total", Help: "Bytes that the removed images took, by the runtime's account.",
		}),
	}
	for _, v := range []*prometheus.CounterVec{m.rotations, m.gcRuns} { // zero from the start, so that a rate can be taken of the first
		v.WithLabelValues(ok)
		v.WithLabelValues(failed)
	}
	m.registry.MustRegister(m.actions, m.starts, m.rollbacks, m.rotations, m.gcRuns, m.gcImages, m.gcBytes, newPods(c.Board),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_runtime_up", Help: "1 while the container runtime answers.",
		}, func() float64 { return boolean(c.RuntimeUp != nil && c.RuntimeUp()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "slipway_certificate_expiration_timestamp_seconds", Help: "When the first of the certificates that slipway made for the control plane ends, in Unix time; 0 without any.",
		}, func() float64 {
			if c.CertificateEnd == nil {
				return 0
			}
			return float64(c.CertificateEnd())
		}),
		// Of this process, what an alert may be about; with its memory statistics the Go collector has four times as many.
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled()),
	)
	return m
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, DisableCompression: true})
}

// The results of what is counted.
const (
	ok     = "ok"
	failed = "error"
)

func result(err error) string {
	if err != nil {
		return failed
	}
	return ok
}

func boolean(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Observe counts one action of the supervisor.
func (m *Metrics) Observe(kind lifecycle.ActionKind, took time.Duration, err error) {
	if m != nil {
		m.actions.WithLabelValues(strings.ReplaceAll(kind.String(), " ", "_"), result(err)).Observe(took.Seconds())
	}
}

// PodStarted counts a version of a pod whose containers all run for the first time.
func (m *Metrics) PodStarted(took time.Duration) {
	if m != nil {
		m.starts.Observe(took.Seconds())
	}
}

// RolledBack counts a version that was given up for the last good one.
func (m *Metrics) RolledBack() {
	if m != nil {
		m.rollbacks.Inc()
	}
}

// LogRotated counts a rotation.
func (m *Metrics) LogRotated(err error) {
	if m != nil {
		m.rotations.WithLabelValues(result(err)).Inc()
	}
}

// ImagesCollected counts a collection of unused images that removed so many, which took so many bytes.
func (m *Metrics) ImagesCollected(images int, bytes int64, err error) {
	if m != nil {
		m.gcRuns.WithLabelValues(result(err)).Inc()
		m.gcImages.Add(float64(images))
		m.gcBytes.Add(float64(bytes))
	}
}
