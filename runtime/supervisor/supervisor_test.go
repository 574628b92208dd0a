package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri/critest"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

func manyPods(t testing.TB, w *world, n int) manifest.Snapshot {
	t.Helper()
	var snap manifest.Snapshot
	for i := range n {
		p, err := w.parse(fmt.Sprintf("pod-%03d", i), "v1", []string{"probe"})
		if err != nil {
			t.Fatal(err)
		}
		snap.Pods = append(snap.Pods, p)
	}
	return snap
}

func (w *world) running() int {
	return strings.Count(w.inventory(), "CONTAINER_RUNNING")
}

// TestFiftyPods starts fifty pods, adopts them with another supervisor, and removes them all.
func TestFiftyPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin()
		snap := manyPods(t, w, 50)
		w.sources[0].last = &snap
		w.sources[0].next <- snap
		time.Sleep(time.Second)
		synctest.Wait()
		if n := w.running(); n != 50 {
			t.Fatalf("%d containers run, want 50", n)
		}
		if !w.ready {
			t.Error("it does not say that all pods were looked at")
		}
		before := w.inventory()
		w.end()
		w.rec.take()
		w.begin()
		time.Sleep(time.Minute)
		synctest.Wait()
		if after := w.inventory(); after != before {
			t.Errorf("adopting changed the pods:\n%s\nbecame\n%s", before, after)
		}
		if calls := w.rec.take(); calls != "" {
			t.Errorf("adopting did something:\n%s", calls)
		}

		// What is left of it costs one listing in ten seconds, whatever the number of pods and probes.
		w.rt.ForgetCalls()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.rt.Calls("ListPodSandbox", "ListContainers")); n != 12 {
			t.Errorf("%d list calls in a minute without a change, want 12", n)
		}

		w.sources[0].next <- manifest.Snapshot{}
		time.Sleep(time.Minute)
		synctest.Wait()
		if left := w.inventory(); left != "" {
			t.Errorf("left in the runtime:\n%s", left)
		}
		if left := w.leftovers(); len(left) > 0 {
			t.Errorf("left on the host: %q", left)
		}
		w.end()
	})
}

// TestClassesShareTheCPU checks that the cgroups above the pods' get what the pods ask for, when the set of pods changes.
func TestClassesShareTheCPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin()
		p, err := manifest.Parse([]byte(`{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {hostNetwork: true, containers: [
			{name: web, image: "example.com/web:1", resources: {requests: {cpu: 250m}}}]}}`), "/m/web.yaml", nodeName)
		if err != nil {
			t.Fatal(err)
		}
		w.sources[0].next <- manifest.Snapshot{Pods: []*manifest.StaticPod{p}}
		synctest.Wait()
		for path, want := range map[string]int64{"/kubepods/burstable": 256, "/kubepods/besteffort": 2} {
			if got := w.cgroups.there[path].CPUShares; got == nil || *got != want {
				t.Errorf("%s has the shares %v, want %d", path, got, want)
			}
		}
		w.end()
	})
}

// TestLastWordsAreShown follows a container's termination message from its mount to the status.
func TestLastWordsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin()
		p, err := w.parse("etcd", "v1", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.sources[0].next <- manifest.Snapshot{Pods: []*manifest.StaticPod{p}}
		synctest.Wait()
		for _, c := range list(t.Context(), w.client, "", "").containers {
			st, err := w.client.ContainerStatus(t.Context(), c.GetId())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range st.GetMounts() {
				if m.GetContainerPath() == "/dev/termination-log" {
					if err := os.WriteFile(m.GetHostPath(), []byte("out of disk"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		w.rt.Exit("etcd", 1)
		synctest.Wait()
		pods, _, _ := w.board.Pods()
		if last := pods.Items[0].Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.Message != "out of disk" {
			t.Errorf("the last termination is %v, want the message %q", last, "out of disk")
		}
		w.end()
	})
}

// TestListAgain lists once more when it is asked to while a listing is under way, which may have begun too early.
func TestListAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := newLister(Config{Runtime: w.rec, Log: slog.New(slog.DiscardHandler), Resync: time.Hour})
		defer l.close()
		var group sync.WaitGroup
		defer group.Wait()
		w.rt.Hang("ListPodSandbox")
		for range 3 {
			l.start(t.Context(), &group, false)
			synctest.Wait()
		}
		w.rt.Heal()
		for range 2 {
			l.finish(t.Context(), &group, (<-l.done).err)
			synctest.Wait()
		}
		if n := len(w.rt.Calls("ListPodSandbox")); n != 2 || l.running {
			t.Errorf("%d listings for three wishes, one of them under way: %v; want 2", n, l.running)
		}
	})
}

// TestSourceFails checks that Run ends with a source's error, and that its pods go on.
func TestSourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no such directory")
		s := New(Config{
			Runtime: newWorld(t).rec, Sources: []Source{sourceFunc(func(context.Context) error { return broken })}, Board: status.NewBoard(),
			Cgroups: &cgroups{}, Log: slog.New(slog.DiscardHandler), Now: time.Now, Resync: time.Minute, Ready: func() {},
		})
		if err := s.Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("Run: %v, want %v", err, broken)
		}
	})
}

type sourceFunc func(context.Context) error

func (f sourceFunc) Run(ctx context.Context, _ func(manifest.Snapshot)) error { return f(ctx) }

// BenchmarkCompare is what 200 pods cost every ten seconds while nothing happens, apart from the runtime's answer.
func BenchmarkCompare(b *testing.B) {
	w := &world{rt: critest.New(critest.Options{}), node: podspec.Node{Name: nodeName}}
	r := newRoster()
	l := listing{}
	for _, p := range manyPods(b, w, 200).Pods {
		config := podspec.Sandbox(p, 0, w.node)
		l.sandboxes = append(l.sandboxes, &runtimeapi.PodSandbox{Id: "s" + p.UID, Labels: config.GetLabels(), Annotations: config.GetAnnotations()})
		l.containers = append(l.containers, &runtimeapi.Container{Id: "c" + p.UID, PodSandboxId: "s" + p.UID, Labels: config.GetLabels(), State: 1})
	}
	for name, there := range l.byName() {
		r.enter(&worker{name: name})
		r.saw(name, there.states, "")
	}
	b.ReportAllocs()
	for b.Loop() {
		r.compare(l.byName(), true)
	}
}

// BenchmarkPublishUnchanged is one look at a pod that shows nothing new.
func BenchmarkPublishUnchanged(b *testing.B) {
	w := &world{rt: critest.New(critest.Options{})}
	p := manyPods(b, w, 1).Pods[0]
	board := status.NewBoard()
	v := status.View{Name: p.FullName(), Want: p, Now: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		board.Publish(v)
	}
}
