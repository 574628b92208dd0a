package supervisor

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

var update = flag.Bool("update", false, "rewrite testdata/*.txt; only commit what you can explain")

// TestTraces replays the files of testdata. A file is a list of blocks: comments, commands, "----", and what the
// supervisor asked of the runtime because of them, with the time since the start. Commands on one line, separated by
// ";", happen at once; after each line everything comes to rest, but no time passes save by "wait".
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got string
			synctest.Test(t, func(t *testing.T) { got = replay(t, string(want)) })
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s (-want +got), go test -update to rewrite:\n%s", file, diff)
			}
		})
	}
}

func replay(t *testing.T, text string) string {
	w := newWorld(t)
	s := &script{world: w, files: map[string]*manifest.StaticPod{}, broken: map[string]manifest.Problem{}}
	var blocks []string
	for _, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		input, _, hasOutput := strings.Cut(strings.TrimSpace(block), "\n----")
		if !hasOutput {
			blocks = append(blocks, input)
			continue
		}
		s.out.Reset()
		for _, text := range strings.Split(input, "\n") {
			if strings.HasPrefix(text, "#") {
				continue
			}
			s.changed = false
			for _, command := range strings.Split(text, ";") {
				if err := s.do(strings.Fields(command)); err != nil {
					t.Fatalf("%s: %v", command, err)
				}
			}
			if s.changed {
				s.deliver(0)
			}
			synctest.Wait()
			s.out.WriteString(w.rec.take())
		}
		blocks = append(blocks, strings.TrimSpace(input+"\n----\n"+s.out.String()))
	}
	w.end()
	if strings.Contains(w.log.String(), "level=ERROR") {
		t.Errorf("the log:\n%s", w.log.String())
	}
	return strings.ReplaceAll(strings.Join(blocks, "\n\n")+"\n", w.dir, "/DIR")
}

// parse makes a manifest of one or more containers. Options: after=A,B containers=A,B image=REF probe (readiness)
// liveness rollback within=20s post-start pre-stop watch=/PATH policy=Never pull=Always grace=5 refused (a field that is not supported).
func (w *world) parse(name, version string, options []string) (*manifest.StaticPod, error) {
	containers, image, extra, after, probe, pull := []string{name}, "", "", "", "", "IfNotPresent"
	var hooks []string
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "after":
			after += fmt.Sprintf("    %s: %s\n", AnnotationStartAfter, value)
		case "containers":
			containers = strings.Split(value, ",")
		case "image":
			image = value
		case "probe":
			probe = "    readinessProbe: {exec: {command: [ready]}, periodSeconds: 1}\n"
		case "liveness":
			probe = "    livenessProbe: {exec: {command: [live]}, periodSeconds: 10, failureThreshold: 3}\n"
		case "policy":
			extra += "  restartPolicy: " + value + "\n"
		case "pull":
			pull = value
		case "post-start", "pre-stop": // a command of that name
			hooks = append(hooks, map[string]string{"post-start": "postStart", "pre-stop": "preStop"}[key]+": {exec: {command: ["+key+"]}}")
		case "watch":
			after += "    slipway.dev/restart-on-change: " + value + "\n"
		case "rollback":
			after += "    slipway.dev/rollback: \"true\"\n"
		case "within":
			after += "    slipway.dev/ready-within: " + value + "\n"
		case "grace":
			extra += "  terminationGracePeriodSeconds: " + value + "\n"
		case "refused":
			extra += "  readinessGates: [{conditionType: example.com/balancer}]\n"
		default:
			return nil, fmt.Errorf("no such option: %s", o)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: kube-system\n  labels: {version: %s}\n  annotations:\n    example.com/any: thing\n%s", name, version, after)
	fmt.Fprintf(&b, "spec:\n  hostNetwork: true\n%s  containers:\n", extra)
	for _, c := range containers {
		ref := image
		if ref == "" {
			ref = "example.com/" + c + ":1"
			w.rt.AddImage(ref)
		}
		fmt.Fprintf(&b, "  - name: %s\n    image: %s\n    imagePullPolicy: %s\n%s", c, ref, pull, probe)
		if len(hooks) > 0 {
			fmt.Fprintf(&b, "    lifecycle: {%s}\n", strings.Join(hooks, ", "))
		}
	}
	return manifest.Parse([]byte(b.String()), "/m/"+name+".yaml", nodeName)
}
