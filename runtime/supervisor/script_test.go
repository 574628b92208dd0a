package supervisor

import (
	gocmp "cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cgroup"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// script performs the commands of a trace.
type script struct {
	*world
	out     strings.Builder
	files   map[string]*manifest.StaticPod
	broken  map[string]manifest.Problem
	changed bool // the manifests
}

func (s *script) do(words []string) error {
	verb, args := words[0], words[1:]
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch verb {
	case "start": // a supervisor
		s.begin()
	case "kill": // it
		s.end()
	case "sources": // before start: how many; "manifest" is the first one's
		n, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		for len(s.sources) < n {
			s.sources = append(s.sources, newFeed())
		}
	case "takes", "fails": // HOOK DURATION: post-start or pre-stop
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.takes[arg(0)], s.fails[arg(0)] = d, verb == "fails"
		s.mu.Unlock()
	case "clock": // DURATION: the wall clock is that far off from now on
		d, err := time.ParseDuration(arg(0))
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.offset = d
		s.mu.Unlock()
	case "disk": // "broken" or "well": nothing can be made in the directory of pods
		pods, aside := filepath.Join(s.node.KubeletRoot, "pods"), filepath.Join(s.node.KubeletRoot, "aside")
		if arg(0) == "broken" {
			return errors.Join(os.Rename(pods, aside), os.WriteFile(pods, nil, 0o600))
		}
		return errors.Join(os.Remove(pods), os.Rename(aside, pods))
	case "restart": // POD why…
		if err := s.s.Restart("kube-system/"+arg(0)+"-"+nodeName, strings.Join(args[1:], " ")); err != nil {
			fmt.Fprintf(&s.out, "%v\n", err)
		}
	case "files": // POD FINGERPRINT
		s.world.files.set("kube-system/"+arg(0)+"-"+nodeName, arg(1))
	case "log": // CONTAINER words…: a line that the newest one writes
		return s.writeLog(arg(0), strings.Join(args[1:], " "))
	case "stored": // pods of which something is stored
		names, err := s.good.List()
		if err != nil {
			return err
		}
		fmt.Fprintf(&s.out, "stored: %q\n", names)
	case "events": // since the last time
		synctest.Wait()
		s.out.WriteString(s.rec.take())
		s.showEvents()
	case "exit-told": // CONTAINER CODE: it has ended, and the runtime does not show it yet
		code, err := strconv.Atoi(arg(1))
		if err != nil {
			return err
		}
		return s.tellExit(arg(0), int32(code))
	case "exit-shown": // CODE: now the runtime shows it
		code, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		if !s.rt.Exit(s.told, int32(code)) {
			return errors.New("no such container")
		}
	case "max-pulls": // before start
		n, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		s.maxPulls = n
	case "deliver": // what a further source wants: nothing
		n, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		s.send(n, manifest.Snapshot{})
	case "forgetful": // the source does not repeat to the next supervisor what it delivered
		n, err := strconv.Atoi(arg(0))
		if err != nil {
			return err
		}
		s.sources[n].last = nil
	case "manifest": // NAME VERSION [option…]
		p, err := s.parse(arg(0), arg(1), args[2:])
		if err != nil {
			return err
		}
		s.files[arg(0)], s.changed = p, true
		delete(s.broken, arg(0))
	case "invalid": // the file of NAME, or one that does not say whose it is
		name, full := arg(0), ""
		if name != "" {
			full = "kube-system/" + name + "-" + nodeName
		}
		s.broken[name], s.changed = manifest.Problem{Source: "/m/" + name + ".yaml", FullName: full, Err: errors.New("not a pod")}, true
	case "valid":
		delete(s.broken, arg(0))
		s.changed = true
	case "delete": // the file
		delete(s.files, arg(0))
		delete(s.broken, arg(0))
		s.changed = true
	case "exit": // CONTAINER CODE
		code, err := strconv.Atoi(arg(1))
		if err != nil {
			return err
		}
		if !s.rt.Exit(arg(0), int32(code)) {
			return errors.New("no such container runs")
		}
	case "crashes": // CONTAINER CODE, at every start from now on
		code, err := strconv.Atoi(arg(1))
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.crash[arg(0)] = int32(code)
		s.mu.Unlock()
	case "works":
		s.mu.Lock()
		delete(s.crash, arg(0))
		s.mu.Unlock()
	case "unready", "ready": // what the probes of a container find
		s.mu.Lock()
		s.unready[arg(0)] = verb == "unready"
		s.mu.Unlock()
	case "stop-takes": // CONTAINER DURATION
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			return err
		}
		s.rt.StopTakes(arg(0), d, 0)
	case "starts-hang": // CONTAINER DURATION: until their caller goes away, and that long afterwards
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			return err
		}
		s.rt.HangStarts(arg(0), d)
	case "starts-work": // CONTAINER
		s.rt.StartsWork(arg(0))
	case "kill-pause":
		if !s.rt.KillSandbox(arg(0) + "-" + nodeName) {
			return errors.New("no such sandbox")
		}
	case "take-away": // every container, or sandbox, of a name, behind the supervisor's back
		return s.takeAway(arg(0), arg(1))
	case "foreign": // NAME UID: a sandbox that a kubelet made; NAME UID INSTANCE: one of another slipway
		return s.foreign(arg(0), arg(1), arg(2))
	case "image": // REF appears in the store
		s.rt.AddImage(arg(0))
	case "no-image":
		s.rt.DropImage(arg(0))
	case "pull-hangs":
		s.rt.OnPull(arg(0), nil)
		s.rt.Hang("PullImage")
	case "down":
		s.rt.Fail("*", grpcstatus.Error(codes.Unavailable, "connection refused"), -1)
	case "fail": // METHOD TIMES words…
		n, err := strconv.Atoi(arg(1))
		if err != nil {
			return err
		}
		text := strings.Join(args[2:], " ")
		for _, c := range list(s.t.Context(), s.client, "", "").containers { // @NAME stands for the id of a container
			text = strings.ReplaceAll(text, "@"+c.GetMetadata().GetName(), c.GetId())
		}
		s.rt.Fail(arg(0), errors.New(text), n)
	case "lose":
		s.rt.Lose(arg(0), 1)
	case "hang":
		s.rt.Hang(arg(0))
	case "heal":
		s.rt.Heal()
	case "no-hints":
		s.quiet = true
	case "wait":
		d, err := time.ParseDuration(arg(0))
		if err != nil {
			return err
		}
		if s.changed {
			s.deliver(0)
			s.changed = false
		}
		time.Sleep(d)
	case "status":
		synctest.Wait()
		s.out.WriteString(s.rec.take())
		s.status()
	case "lists": // how many listings there were since "forget"
		synctest.Wait()
		fmt.Fprintf(&s.out, "%d sandbox lists, %d container lists\n", len(s.rt.Calls("ListPodSandbox")), len(s.rt.Calls("ListContainers")))
	case "forget":
		synctest.Wait()
		s.rt.ForgetCalls()
		s.log.Reset()
	case "busy", "idle": // the cgroups of pods that end
		s.cgroups.mu.Lock()
		s.cgroups.busy = map[string]error{"busy": fmt.Errorf("removing: %w", cgroup.ErrBusy)}[verb]
		s.cgroups.mu.Unlock()
	case "warnings": // since "forget"
		synctest.Wait()
		lines := strings.Split(s.log.String(), "\n")
		for i := range lines {
			_, lines[i], _ = strings.Cut(lines[i], " ") // without the time
		}
		slices.Sort(lines)
		for _, l := range lines {
			if l, ok := strings.CutPrefix(l, "level=WARN "); ok {
				fmt.Fprintf(&s.out, "warning: %s\n", l)
			}
		}
	case "leftovers":
		synctest.Wait()
		for _, l := range s.leftovers() {
			name := filepath.Base(l)
			if i := strings.LastIndex(name, "-"); strings.HasSuffix(name, ".log") {
				name = name[:i] + "-ID.log"
			}
			fmt.Fprintf(&s.out, "left: %s\n", name)
		}
	default:
		return fmt.Errorf("no such command")
	}
	return nil
}

// deliver gives the present manifests to the supervisor, as the directory source would.
func (s *script) deliver(source int) {
	var snap manifest.Snapshot
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		snap.Pods = append(snap.Pods, s.files[name])
	}
	for _, name := range slices.Sorted(maps.Keys(s.broken)) {
		snap.Problems = append(snap.Problems, s.broken[name])
	}
	s.send(source, snap)
}

func (s *script) send(source int, snap manifest.Snapshot) {
	s.sources[source].last = &snap
	if s.cancel != nil {
		s.sources[source].next <- snap
	}
}

func (s *script) writeLog(container, text string) error {
	path := ""
	for _, c := range list(s.t.Context(), s.client, "", "").containers {
		if c.GetMetadata().GetName() != container {
			continue
		}
		st, err := s.client.ContainerStatus(s.t.Context(), c.GetId())
		if err != nil {
			return err
		}
		path = st.GetLogPath()
	}
	return os.WriteFile(path, []byte(time.Now().Format(time.RFC3339Nano)+" stderr F "+text+"\n"), 0o600)
}

func (s *script) showEvents() {
	list, _ := s.events.Since(s.shown)
	for _, e := range list {
		s.shown = max(s.shown, e.Number)
	}
	slices.SortFunc(list, func(a, b event.Event) int { // what happens at one instant may happen in any order
		return gocmp.Or(a.Last.Compare(b.Last), gocmp.Compare(a.Pod, b.Pod), gocmp.Compare(a.Container, b.Container),
			gocmp.Compare(a.Reason, b.Reason), gocmp.Compare(a.Message, b.Message))
	})
	for _, e := range list {
		who, count := strings.TrimSuffix(strings.TrimPrefix(e.Pod, "kube-system/"), "-"+nodeName), ""
		if e.Container != "" {
			who += "/" + e.Container
		}
		if e.Count > 1 {
			count = fmt.Sprintf(" (%d times)", e.Count)
		}
		text := e.Message
		if e.UID != "" {
			text = strings.ReplaceAll(text, e.UID, "UID")
		}
		fmt.Fprintf(&s.out, "event %8s  %s %s %s: %s%s\n", e.Last.Sub(s.rec.start).Round(time.Millisecond), e.Type, e.Reason, who, text, count)
	}
}

func (s *script) status() {
	list, problems, _ := s.board.Pods()
	for _, p := range list.Items {
		fmt.Fprintf(&s.out, "%s: %s %s", strings.TrimSuffix(p.Name, "-"+nodeName), p.Status.Phase, p.Annotations[status.AnnotationState])
		for _, c := range p.Status.ContainerStatuses {
			ready := "not ready"
			if c.Ready {
				ready = "ready"
			}
			fmt.Fprintf(&s.out, ", %s %s after %d restarts", c.Name, ready, c.RestartCount)
		}
		if why := p.Annotations[status.AnnotationWhy]; why != "" {
			fmt.Fprintf(&s.out, " (%s)", why)
		}
		if problem := p.Annotations[status.AnnotationProblem]; problem != "" {
			fmt.Fprintf(&s.out, " PROBLEM %s", problem)
		}
		if rejected := p.Annotations[status.AnnotationRejected]; rejected != "" {
			fmt.Fprintf(&s.out, " REJECTED %s", rejected)
		}
		if log := p.Annotations[status.AnnotationRejectedLog]; log != "" {
			fmt.Fprintf(&s.out, " LOG %q", log)
		}
		s.out.WriteString("\n")
	}
	for _, p := range problems {
		fmt.Fprintf(&s.out, "refused: %s %s: %s\n", p.Source, p.Pod, p.Reason)
	}
	fmt.Fprintf(&s.out, "all pods were looked at: %v\n", s.ready)
}

func (s *script) takeAway(kind, name string) error {
	all := list(s.t.Context(), s.client, "", s.node.Instance)
	for _, c := range all.containers {
		if kind == "container" && c.GetMetadata().GetName() == name {
			return s.client.RemoveContainer(s.t.Context(), c.GetId())
		}
	}
	for _, sb := range all.sandboxes {
		if kind == "sandbox" && sb.GetMetadata().GetName() == name+"-"+nodeName {
			return s.client.RemovePodSandbox(s.t.Context(), sb.GetId())
		}
	}
	return errors.Join(all.err, errors.New("there is none"))
}

func (s *script) foreign(name, uid, instance string) error {
	pod := name + "-" + nodeName
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod, Namespace: "kube-system", Uid: uid},
		Labels:       map[string]string{podspec.LabelPodName: pod, podspec.LabelPodNamespace: "kube-system", podspec.LabelPodUID: uid},
		LogDirectory: s.t.TempDir(),
		Linux: &runtimeapi.LinuxPodSandboxConfig{SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}},
	}
	if instance != "" {
		config.Annotations = map[string]string{podspec.AnnotationSpecHash: uid, podspec.AnnotationInstance: instance}
	}
	id, err := s.client.RunPodSandbox(s.t.Context(), config, "")
	if err != nil {
		return err
	}
	s.rt.AddImage("example.com/foreign:1")
	c, err := s.client.CreateContainer(s.t.Context(), id, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "example.com/foreign:1"},
		Labels: config.GetLabels(), LogPath: "0.log",
	}, config)
	if err != nil {
		return err
	}
	return s.client.StartContainer(s.t.Context(), c)
}
