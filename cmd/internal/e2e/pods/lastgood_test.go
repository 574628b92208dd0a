//go:build e2e

package pods

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
)

// good is the version that is returned to.
func good() *podtest.Manifest {
	return podtest.Pod("web").Annotate("slipway.dev/rollback", "true").Container("main", "print:good", "forever")
}

// TestReturnsToTheLastGoodVersion gives a running pod versions that cannot work, each in its own way. Every time the last
// good version comes back, the status says why, and a supervisor that is killed does not try the bad one again.
func TestReturnsToTheLastGoodVersion(t *testing.T) {
	t.Parallel()
	bad := map[string]struct {
		pod  *podtest.Manifest
		want []string // in slipway status POD
	}{
		"it crash-loops": {
			podtest.Pod("web").Annotate("slipway.dev/rollback", "true").Container("main", "print:these are its last words", "exit:7"),
			[]string{"exit code 7", "these are its last words"},
		},
		"it does not become ready": {
			good().Annotate("slipway.dev/ready-within", "3s").Edit(func(c *corev1.Container) {
				c.Args[0] = "print:never ready"
				c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: "127.0.0.1", Port: intstr.FromInt(18341)}}, PeriodSeconds: 1}
			}),
			[]string{"3s", "never ready"},
		},
		"its image cannot be had": {
			good().Edit(func(c *corev1.Container) { c.Image, c.ImagePullPolicy = "slipway.dev/missing:1", corev1.PullNever }),
			[]string{"slipway.dev/missing:1"},
		},
		"it cannot be created": {
			good().Annotate("slipway.dev/ready-within", "5s").HostPath("d", "/does/not/exist", corev1.HostPathDirectory),
			[]string{"/does/not/exist"},
		},
	}
	for name, c := range bad {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := podtest.New(t, podtest.Options{})
			n.Supervise()
			n.Put("web.yaml", good().YAML())
			n.WaitRunning("web", "main", patience)
			waitReady(n, "web")
			pause(t, 12*time.Second) // the probation
			n.Put("web.yaml", c.pod.YAML())
			n.WaitFor("the return", 2*time.Minute, func() (bool, string) {
				p := shown(n, "web")
				return ready(p) && p.Annotations["slipway.dev/rejected"] != "" && strings.HasSuffix(n.Log("web", "main"), "good\n"), why(p)
			})
			r := n.Slipway("status", "web")
			for _, want := range c.want {
				if !strings.Contains(r.Stdout, want) {
					t.Errorf("slipway status does not say %q:\n%s", want, r.Stdout)
				}
			}
			before := n.WaitRunning("web", "main", patience)
			n.KillSupervisor()
			n.Supervise()
			waitReady(n, "web")
			oneSandbox(n, "web")
			if c, _ := n.Running("web", "main"); c.ID != before.ID {
				t.Errorf("a restart of the supervisor touched the pod: %s", n.Describe("web"))
			}
			if p := shown(n, "web"); p == nil || p.Annotations["slipway.dev/rejected"] == "" {
				t.Errorf("a restart of the supervisor forgot the rejected version: %s", why(p))
			}
			n.Put("web.yaml", podtest.Pod("web").Annotate("slipway.dev/rollback", "true").Container("main", "print:mended", "forever").YAML())
			n.WaitFor("the mended version", patience, func() (bool, string) {
				p := shown(n, "web")
				return ready(p) && p.Annotations["slipway.dev/rejected"] == "" && strings.HasSuffix(n.Log("web", "main"), "mended\n"), why(p)
			})
		})
	}
}

// TestWithoutTheAnnotationNothingIsTakenBack: the bad version stays, and the status says what is wrong.
func TestWithoutTheAnnotationNothingIsTakenBack(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	running(n)
	pause(t, 12*time.Second)
	n.Put("web.yaml", podtest.Pod("web").Container("main", "print:bad", "exit:7").YAML())
	n.WaitFor("three exits", 2*time.Minute, func() (bool, string) {
		p := shown(n, "web")
		return p != nil && p.Status.ContainerStatuses[0].RestartCount >= 3 && strings.Contains(why(p), "exit code 7"), why(p)
	})
	if log := n.Log("web", "main"); strings.Contains(log, "hello") {
		t.Errorf("the former version ran again:\n%s", log)
	}
}
