package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/status"
)

// pods collects what the board holds at the moment of a scrape, so that a pod that is gone has no metrics.
type pods struct {
	board                            *status.Board
	ready, state, restarts, problems *prometheus.Desc
}

func newPods(board *status.Board) *pods {
	pod := []string{"namespace", "pod"}
	return &pods{
		board:    board,
		ready:    prometheus.NewDesc("slipway_pod_ready", "1 for a static pod that is ready, else 0.", pod, nil),
		state:    prometheus.NewDesc("slipway_pod_state", "1, with the state of the static pod as a label.", append(pod, "state"), nil),
		restarts: prometheus.NewDesc("slipway_container_restarts_total", "Restarts of a container of a static pod.", append(pod, "container"), nil),
		problems: prometheus.NewDesc("slipway_manifest_problems", "Manifests that are not taken.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (p *pods) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.ready, p.state, p.restarts, p.problems} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (p *pods) Collect(out chan<- prometheus.Metric) {
	list, problems, _ := p.board.Pods()
	for i := range list.Items {
		pod := &list.Items[i]
		gauge := func(d *prometheus.Desc, value float64, more ...string) {
			out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{pod.Namespace, pod.Name}, more...)...)
		}
		gauge(p.ready, boolean(isReady(pod)))
		gauge(p.state, 1, pod.Annotations[status.AnnotationState])
		for _, of := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for j := range of {
				out <- prometheus.MustNewConstMetric(p.restarts, prometheus.CounterValue, float64(of[j].RestartCount), pod.Namespace, pod.Name, of[j].Name)
			}
		}
	}
	out <- prometheus.MustNewConstMetric(p.problems, prometheus.GaugeValue, float64(len(problems)))
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
