package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// podOf is a manifest with more on the pod's spec, and more on its only container.
func podOf(spec, container string) string {
	if spec != "" {
		spec += ", "
	}
	if container != "" {
		container = ", " + container
	}
	return "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {" + spec + "containers: [{name: main, image: a:1" + container + "}]}\n"
}

// What the API's validation refuses is refused, at the field that is wrong.
func TestValidation(t *testing.T) {
	for _, tc := range []struct{ spec, container, want string }{
		// hooks
		{"", "lifecycle: {preStop: {}}", "lifecycle.preStop: Invalid value: \"\": has 0 handlers"},
		{"", "lifecycle: {preStop: {exec: {command: []}}}", "lifecycle.preStop.exec.command: Required value"},
		{"", "lifecycle: {postStart: {httpGet: {port: 0}}}", "postStart.httpGet.port: Invalid value"},
		{"", "lifecycle: {postStart: {httpGet: {port: web}}}", "postStart.httpGet.port: Not found"},
		{"", "lifecycle: {postStart: {httpGet: {port: 80, scheme: FTP}}}", "postStart.httpGet.scheme: Unsupported value"},
		{"", "lifecycle: {postStart: {httpGet: {port: 80, httpHeaders: [{name: 'a b', value: c}]}}}", "httpHeaders[0].name: Invalid value"},
		{"", "lifecycle: {preStop: {tcpSocket: {port: 70000}}}", "preStop.tcpSocket.port: Invalid value"},
		{"", "lifecycle: {preStop: {sleep: {seconds: -1}}}", "preStop.sleep.seconds: Invalid value: -1: must be between 0 and terminationGracePeriodSeconds (30)"},
		{"terminationGracePeriodSeconds: 5", "lifecycle: {preStop: {sleep: {seconds: 6}}}", "preStop.sleep.seconds"},
		{"", "lifecycle: {preStop: {sleep: {seconds: 1}, exec: {command: [a]}}}", "has 2 handlers"},
		{"", "lifecycle: {stopSignal: SIGTERM}", "lifecycle.stopSignal: Forbidden: needs spec.os.name: linux"},
		{"os: {name: linux}", "lifecycle: {stopSignal: SIGRTMIN+16}", "lifecycle.stopSignal: Invalid value"},
		{"os: {name: linux}", "lifecycle: {stopSignal: TERM}", "lifecycle.stopSignal: Invalid value"},
		{"initContainers: [{name: i, image: a:1, lifecycle: {preStop: {sleep: {seconds: 1}}}}]", "", "initContainers[0].lifecycle: Forbidden"},
		// restarts
		{"", "restartPolicy: Sometimes", "restartPolicy: Unsupported value"},
		{"", "restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]", "containers[0].restartPolicy: Required value"},
		{"", "restartPolicy: Never, restartPolicyRules: [{action: Restart}]", "restartPolicyRules[0].exitCodes: Required value"},
		{"", "restartPolicy: Never, restartPolicyRules: [{action: Stop, exitCodes: {operator: In, values: [1]}}]", "restartPolicyRules[0].action: Unsupported value"},
		{"", "restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: Gt, values: [1]}}]", "exitCodes.operator: Unsupported value"},
		{"activeDeadlineSeconds: 0", "", "spec.activeDeadlineSeconds: Invalid value"},
		{"activeDeadlineSeconds: -1", "", "spec.activeDeadlineSeconds: Invalid value"},
		{"activeDeadlineSeconds: 2147483648", "", "spec.activeDeadlineSeconds: Invalid value"},
		// mounts
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, subPath: /a}]", "volumeMounts[0].subPath: Invalid value: \"/a\": must be relative"},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, subPath: a/../b}]", "volumeMounts[0].subPath: Invalid value: \"a/../b\": must not contain '..'"},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, subPathExpr: ../$(A)}]", "volumeMounts[0].subPathExpr: Invalid value"},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, subPath: a, subPathExpr: b}]", "volumeMounts[0].subPathExpr: Invalid value"},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: Enabled}]", "recursiveReadOnly: Forbidden: needs readOnly: true"},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Maybe}]", "recursiveReadOnly: Unsupported value"},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: IfPossible, mountPropagation: HostToContainer}]", "recursiveReadOnly: Forbidden"},
		// volumes
		{"volumes: [{name: v, image: {}}]", "", "spec.volumes[0].image.reference: Required value"},
		{"volumes: [{name: v, image: {reference: a, pullPolicy: Maybe}}]", "", "spec.volumes[0].image.pullPolicy: Unsupported value"},
		{"volumes: [{name: v, emptyDir: {medium: Disk}}]", "", "spec.volumes[0].emptyDir.medium: Invalid value"},
		{"volumes: [{name: v, emptyDir: {medium: HugePages}}]", "", "found 0 sizes"},
		{"volumes: [{name: v, emptyDir: {medium: HugePages-2Mi}}]", "", "spec.volumes[0].emptyDir.medium: Invalid value"},
		{"volumes: [{name: v, hostPath: {path: etc}}]", "", "hostPath.path: Invalid value: \"etc\": must be absolute"},
		{"volumes: [{name: v, downwardAPI: {items: [{path: ..a, fieldRef: {fieldPath: metadata.name}}]}}]", "", "must not begin with '..'"},
		{"volumes: [{name: v, downwardAPI: {items: [{path: a/.., fieldRef: {fieldPath: metadata.name}}]}}]", "", "names no file"},
		{"volumes: [{name: v, projected: {sources: [{downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}}, {downwardAPI: {items: [{path: ./a, fieldRef: {fieldPath: metadata.uid}}]}}]}}]", "", "sources[1].downwardAPI.items[0].path: Duplicate value"},
		{"volumes: [{name: v, downwardAPI: {items: [{path: a, resourceFieldRef: {containerName: other, resource: limits.cpu}}]}}]", "", "containerName: Not found: \"other\""},
		{"", "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1Mi}}}]", "divisor: Unsupported value"},
		{"", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: k}}}]", "fileKeyRef.volumeName: Not found"},
		{"volumes: [{name: v, hostPath: {path: /a}}]", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: k}}}]", "fileKeyRef.volumeName: Invalid value"},
		{"volumes: [{name: v}]", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: ../p, key: k}}}]", "fileKeyRef.path: Invalid value"},
		{"volumes: [{name: v}]", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: ''}}}]", "fileKeyRef.key: Invalid value"},
		// resources
		{"resources: {limits: {ephemeral-storage: 1Gi}}", "", "spec.resources.limits[ephemeral-storage]: Invalid value"},
		{"resources: {requests: {cpu: 1}}", "resources: {requests: {cpu: 2}}", "spec.resources.requests[cpu]: Invalid value: \"1\": is less than its containers have together, 2"},
		{"resources: {limits: {memory: 1Gi}}", "resources: {limits: {memory: 2Gi}, requests: {memory: 1Mi}}", "spec.containers[0].resources.limits[memory]: Invalid value"},
		{"", "resources: {limits: {hugepages-2Mi: 4Mi}}", "spec.containers[0].resources: Forbidden: huge pages need cpu or memory"},
		{"", "resources: {limits: {cpu: 1, hugepages-2Mi: 3Mi}}", "must be a multiple of the page size, 2097152 bytes"},
		{"", "resources: {limits: {cpu: 1}, requests: {hugepages-2Mi: 2Mi}}", "resources.requests[hugepages-2Mi]: Required value"},
		{"", "resources: {limits: {gpu: 1}}", "resources.limits[gpu]: Invalid value"},
		{"", "resources: {limits: {example.com/gpu: 500m}}", "must be a whole number"},
		{"overhead: {cpu: -1}", "", "spec.overhead[cpu]: Invalid value"},
		{"", "resizePolicy: [{resourceName: disk, restartPolicy: NotRequired}]", "resizePolicy[0].resourceName: Unsupported value"},
		// the node
		{"nodeSelector: {'a b': c}", "", "spec.nodeSelector[a b]: Invalid value"},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}", "", "nodeSelectorTerms: Required value"},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}]}]}}}", "", "matchExpressions[0].values: Required value"},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists, values: [b]}]}]}}}", "", "matchExpressions[0].values: Forbidden"},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Gt, values: [b]}]}]}}}", "", "Gt compares whole numbers"},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Is}]}]}}}", "", "matchExpressions[0].operator: Unsupported value"},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.uid, operator: In, values: [b]}]}]}}}", "", "matchFields[0].key: Unsupported value"},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: Exists, values: [b]}]}]}}}", "", "matchFields[0].operator: Unsupported value"},
		{"runtimeClassName: No_Name", "", "spec.runtimeClassName: Invalid value"},
		{"os: {name: plan9}", "", "spec.os.name: Unsupported value"},
		// names and security
		{"hostnameOverride: a, hostNetwork: true", "", "spec.hostnameOverride: Forbidden"},
		{"hostnameOverride: a, setHostnameAsFQDN: true", "", "spec.hostnameOverride: Forbidden"},
		{"dnsConfig: {searches: ['a b']}", "", "spec.dnsConfig.searches[0]: Invalid value"},
		{"dnsConfig: {options: [{value: '1'}]}", "", "spec.dnsConfig.options[0].name: Required value"},
		{"securityContext: {sysctls: [{name: Net, value: '1'}]}", "", "sysctls[0].name: Invalid value"},
		{"securityContext: {sysctls: [{name: net/a, value: '1'}, {name: net.a, value: '2'}]}", "", "sysctls[1].name: Duplicate value"},
		{"securityContext: {fsGroupChangePolicy: Never}", "", "securityContext.fsGroupChangePolicy: Unsupported value"},
		{"securityContext: {seLinuxChangePolicy: Never}", "", "securityContext.seLinuxChangePolicy: Unsupported value"},
		{"preemptionPolicy: Always", "", "spec.preemptionPolicy: Unsupported value"},
	} {
		data := podOf(tc.spec, tc.container)
		_, err := Parse([]byte(data), "m.yaml", "node")
		var inv *InvalidError
		if !errors.As(err, &inv) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s | %s\ngot  %v\nwant %s", tc.spec, tc.container, err, tc.want)
			continue
		}
		for _, f := range inv.Fields {
			if f.Line < 1 || f.Column < 1 || f.Line > 4 {
				t.Errorf("%s | %s: %s has no place: %d:%d", tc.spec, tc.container, f.Field, f.Line, f.Column)
			}
		}
	}
}

// Each of these is the right side of a line that TestValidation is on the wrong side of.
func TestValid(t *testing.T) {
	for _, tc := range [][2]string{
		{"", "lifecycle: {postStart: {exec: {command: [a]}}, preStop: {httpGet: {port: web, path: /bye}}}, ports: [{name: web, containerPort: 80}]"},
		{"terminationGracePeriodSeconds: 5", "lifecycle: {postStart: {tcpSocket: {port: 80}}, preStop: {sleep: {seconds: 5}}}"},
		{"", "lifecycle: {preStop: {sleep: {seconds: 0}}}"},
		{"os: {name: linux}", "lifecycle: {stopSignal: SIGRTMIN+15}"},
		{"initContainers: [{name: i, image: a:1, restartPolicy: Always, lifecycle: {postStart: {sleep: {seconds: 1}}}}]", ""},
		{"initContainers: [{name: i, image: a:1, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: NotIn, values: [0, 1]}}]}]", "restartPolicy: OnFailure"},
		{"activeDeadlineSeconds: 2147483647", ""},
		{"volumes: [{name: v}]", "env: [{name: A, value: b}], volumeMounts: [{name: v, mountPath: /v, subPathExpr: a/$(A)}, {name: v, mountPath: /w, subPath: a..b/c}]"},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled, mountPropagation: None}]"},
		{"volumes: [{name: v, image: {reference: a:1}}]", "volumeMounts: [{name: v, mountPath: /v}]"},
		{"volumes: [{name: v, emptyDir: {medium: HugePages}}, {name: w, emptyDir: {medium: HugePages-2Mi}}]", "resources: {limits: {cpu: 1, hugepages-2Mi: 4Mi}}"},
		{"volumes: [{name: v}]", "env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: p, key: k}}}]"},
		{"resources: {limits: {cpu: 2, memory: 2Gi, hugepages-2Mi: 4Mi}}, overhead: {cpu: 10m}", "resources: {limits: {memory: 2Gi}, requests: {cpu: 1}}"},
		{"runtimeClassName: gvisor, nodeSelector: {a: b}", ""},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Gt, values: ['5']}], matchFields: [{key: metadata.name, operator: In, values: [node]}]}]}}}", ""},
		{"dnsConfig: {searches: [., _tcp.example.com.], options: [{name: rotate}]}, securityContext: {sysctls: [{name: net/ipv4/tcp_syncookies, value: '1'}]}", ""},
	} {
		if _, err := Parse([]byte(podOf(tc[0], tc[1])), "m.yaml", "node"); err != nil {
			t.Errorf("%s | %s: %v", tc[0], tc[1], err)
		}
	}
}

// A wrong value of an annotation is an invalid manifest: the annotation would otherwise do nothing, in silence.
func TestAnnotations(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat("/a,", 33), ",")
	for _, tc := range []struct{ name, value, want string }{
		{"rollback", "yes", `expected "true" or "false"`}, {"rollback", "true", ""}, {"rollback", "false", ""},
		{"ready-within", "90", "expected a duration"}, {"ready-within", "90s", ""}, {"ready-within", "999ms", "must be between 1s and 1h0m0s"},
		{"ready-within", "61m", "must be between"}, {"ready-within", "1h", ""},
		{"start-after", "etcd, kube-apiserver", ""}, {"start-after", "", "names no pod"}, {"start-after", "a_b", `"a_b" is not a pod's name`},
		{"restart-on-change", "/etc/a, /etc/b/", ""}, {"restart-on-change", "", "names 0 paths"}, {"restart-on-change", "a", `"a" is not an absolute path`},
		{"restart-on-change", "/a/../b", "contains '..'"}, {"restart-on-change", many, "names 33 paths"}, {"restart-on-change", "/.", "the whole host"},
		{"rolback", "true", `unknown annotation of slipway's; did you mean "slipway.dev/rollback"?`},
	} {
		data := strings.Replace(minimal, "name: web\n", fmt.Sprintf("name: web\n  annotations:\n    slipway.dev/%s: %q\n", tc.name, tc.value), 1)
		_, err := Parse([]byte(data), "m.yaml", "node")
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s=%s: %v, want %q", tc.name, tc.value, err, tc.want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "m.yaml:6:") {
			t.Errorf("%s: not at its line: %v", tc.name, err)
		}
	}
	pod := mustParse(t, strings.Replace(minimal, "name: web\n", "name: web\n  annotations: {slipway.dev/restart-on-change: '/b/, /a//c ,/b'}\n", 1)).Pod
	if got, want := WatchedPaths(pod), []string{"/a/c", "/b"}; !slices.Equal(got, want) {
		t.Errorf("watched %q, want %q", got, want)
	}
	if got := WatchedPaths(mustParse(t, minimal).Pod); got != nil {
		t.Errorf("watched %q, want none", got)
	}
}

// The old AppArmor annotations still count on a static pod, so they must agree with the fields.
func TestAppArmorAnnotations(t *testing.T) {
	for annotation, want := range map[string]string{
		"main: localhost/p": "", "main: unconfined": "", "main: other": "expected runtime/default", "main: localhost/": "expected runtime/default",
		"none: unconfined": "there is no such container",
	} {
		data := strings.Replace(minimal, "name: web\n", "name: web\n  annotations: {container.apparmor.security.beta.kubernetes.io/"+annotation+"}\n", 1)
		if _, err := Parse([]byte(data), "m.yaml", "node"); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", annotation, err, want)
		}
		if annotation == "main: localhost/p" {
			data += "    securityContext: {appArmorProfile: {type: RuntimeDefault}}\n"
			if _, err := Parse([]byte(data), "m.yaml", "node"); err == nil || !strings.Contains(err.Error(), "says otherwise than the field") {
				t.Errorf("%s with a field: %v", annotation, err)
			}
		}
	}
}

// What is unknown and what is invalid come at once, each at its place.
func TestCheckFindsAll(t *testing.T) {
	pod, found := Check([]byte("apiVersion: v1\nkind: Pod\nmetadata:\n  name: Web\nspec:\n  hostNetwrok: true\n  containers:\n  - name: main\n    image: a:1\n    ports: [{containerPort: 0}]\n"), "m.yaml", "node")
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Column, f.Field))
	}
	want := []string{"4:9 metadata.name", "6:3 spec.hostNetwrok", "10:29 spec.containers[0].ports[0].containerPort"}
	if pod != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if pod, found := Check([]byte(minimal), "m.yaml", "node"); pod == nil || found != nil {
		t.Errorf("a good manifest: %v, %v", pod, found)
	}
}

func TestLocate(t *testing.T) {
	const data = "# a\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  labels: {a.b/c: d}\nspec:\n  containers:\n  - image: a\n    lifecycle: {preStop: {}}\n"
	for field, want := range map[string][2]int{
		"spec.containers[0].lifecycle.preStop": {10, 26}, "spec.containers[0].env": {9, 5}, "metadata.labels[a.b/c]": {6, 19},
		"spec.volumes[3]": {8, 3}, "": {3, 1}, "status": {3, 1},
	} {
		if line, column := Locate([]byte(data), field); line != want[0] || column != want[1] {
			t.Errorf("%s: %d:%d, want %v", field, line, column, want)
		}
	}
	if line, column := Locate([]byte(": :"), "spec"); line != 1 || column != 1 {
		t.Errorf("what cannot be read: %d:%d", line, column)
	}
}

func TestPodResourceDefaults(t *testing.T) {
	p := mustParse(t, podOf("resources: {limits: {cpu: 2, memory: 1Gi}}", "resources: {requests: {cpu: 500m}, limits: {hugepages-2Mi: 4Mi, memory: 512Mi}}"))
	r := p.Pod.Spec.Resources
	for name, want := range map[corev1.ResourceName]string{"cpu": "500m", "memory": "512Mi", "hugepages-2Mi": "4Mi"} {
		if q := r.Requests[name]; q.String() != want {
			t.Errorf("request of %s is %s, want %s", name, q.String(), want)
		}
	}
	if q := r.Limits["hugepages-2Mi"]; q.String() != "4Mi" {
		t.Errorf("limit of huge pages is %s", q.String())
	}
}
