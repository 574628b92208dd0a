package lifecycle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// pod makes a manifest from words, of which every one is part of the version:
//
//	v1 containers=a,b init=i sidecars=s policy=Never grace=5s pull=Always uid=u network=pod
//	hook=a,s                 these have a post-start hook; a bare "hook": all main containers
//	volume=data:v1:Always    the main containers mount an image volume with this image and pull policy
//	deadline=5m              activeDeadlineSeconds
//	own=a:Never              a restart policy of a's own
//	rule=a:In:3,4:Restart    a restart rule of a
func pod(words ...string) *manifest.StaticPod {
	p := podWords{words: words, values: map[string][]string{}}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		if !slices.Contains([]string{"containers", "init", "sidecars", "policy", "grace", "pull", "uid", "network", "hook", "volume", "deadline", "own", "rule"}, key) {
			panic("unknown word " + w)
		}
		p.values[key] = append(p.values[key], value)
	}
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicy(p.or("policy", "Always")), HostNetwork: p.or("network", "host") != "pod",
		TerminationGracePeriodSeconds: p.seconds("grace"), ActiveDeadlineSeconds: p.seconds("deadline"),
	}
	always := corev1.ContainerRestartPolicyAlways
	for _, n := range fields(p.or("init", "")) {
		spec.InitContainers = append(spec.InitContainers, p.container(n))
	}
	for _, n := range fields(p.or("sidecars", "")) {
		c := p.container(n)
		c.RestartPolicy = &always
		spec.InitContainers = append(spec.InitContainers, c)
	}
	for _, n := range fields(p.or("containers", "etcd")) {
		c := p.container(n)
		if slices.Contains(p.values["hook"], "") {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
		}
		spec.Containers = append(spec.Containers, c)
	}
	for i, v := range p.values["volume"] {
		f := strings.Split(v, ":")
		name := "volume" + strconv.Itoa(i)
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			Image: &corev1.ImageVolumeSource{Reference: f[0] + ":" + f[1], PullPolicy: corev1.PullPolicy(f[2])},
		}})
		for i := range spec.Containers {
			spec.Containers[i].VolumeMounts = append(spec.Containers[i].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: "/" + name})
		}
	}
	return &manifest.StaticPod{
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "etcd-node", Namespace: "kube-system"}, Spec: spec},
		UID: p.or("uid", "uid-"+strings.Join(words, "-")), SpecHash: "hash-" + strings.Join(words, "-"),
	}
}

type podWords struct {
	words  []string
	values map[string][]string
}

func (p *podWords) or(key, fallback string) string {
	if v := p.values[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return fallback
}

func (p *podWords) seconds(key string) *int64 {
	v := p.or(key, "")
	if v == "" {
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		panic(err)
	}
	s := int64(d / time.Second)
	return &s
}

func (p *podWords) container(name string) corev1.Container {
	c := corev1.Container{Name: name, Image: name + ":" + p.words[0], ImagePullPolicy: corev1.PullPolicy(p.or("pull", "IfNotPresent"))}
	for _, names := range p.values["hook"] {
		if slices.Contains(fields(names), name) {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
		}
	}
	for _, own := range p.values["own"] {
		if n, policy, _ := strings.Cut(own, ":"); n == name {
			value := corev1.ContainerRestartPolicy(policy)
			c.RestartPolicy = &value
		}
	}
	for _, rule := range p.values["rule"] {
		f := strings.Split(rule, ":")
		if f[0] != name {
			continue
		}
		var codes []int32
		for _, s := range fields(f[2]) {
			n, err := strconv.Atoi(s)
			if err != nil {
				panic(fmt.Sprintf("rule %s: %v", rule, err))
			}
			codes = append(codes, int32(n))
		}
		c.RestartPolicyRules = append(c.RestartPolicyRules, corev1.ContainerRestartRule{
			Action:    corev1.ContainerRestartRuleAction(f[3]),
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOperator(f[1]), Values: codes},
		})
	}
	return c
}

func fields(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) }
