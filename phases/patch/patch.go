// Package patch applies the user's patches to what slipway renders.
package patch

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/kubeletconfig"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/templates"
)

// The targets that are no pods.
const (
	KubeletConfiguration = "kubeletconfiguration"
	CoreDNSDeployment    = "corednsdeployment"
)

// Apply returns manifest, as JSON, with the patches for target applied in the order of their file names; those of one
// file keep their order. Patches for other targets are passed over. The first patch that cannot be applied, or whose
// result is no longer a valid object of its kind, ends it with an error that names the file.
func Apply(target string, manifest []byte, patches []config.Patch) ([]byte, error) {
	patches = slices.Clone(patches)
	slices.SortStableFunc(patches, func(a, b config.Patch) int { return cmp.Compare(a.File, b.File) })
	for _, p := range patches {
		if p.Target != target {
			continue
		}
		patched, err := apply(target, manifest, p)
		if err != nil {
			return nil, fmt.Errorf("applying %s patch %q to %s: %w", p.Type, p.File, target, err)
		}
		if err := check(target, patched); err != nil {
			return nil, fmt.Errorf("reading %s after %s patch %q: %w", target, p.Type, p.File, err)
		}
		manifest = patched
	}
	return manifest, nil
}

func apply(target string, manifest []byte, p config.Patch) ([]byte, error) {
	switch p.Type {
	case "json":
		operations, err := jsonpatch.DecodePatch(p.Data)
		if err != nil {
			return nil, fmt.Errorf("reading the list of operations: %w", err)
		}
		return operations.Apply(manifest)
	case "merge":
		return jsonpatch.MergePatch(manifest, p.Data)
	case "strategic":
		return strategicpatch.StrategicMergePatch(manifest, p.Data, schema(target))
	}
	return nil, fmt.Errorf("unknown type %q: use strategic, merge or json", p.Type)
}

// schema returns a value of the type whose struct tags say which lists are merged by key.
func schema(target string) any {
	switch target {
	case KubeletConfiguration:
		return kubeletv1beta1.KubeletConfiguration{}
	case CoreDNSDeployment:
		return appsv1.Deployment{}
	}
	return corev1.Pod{}
}

func check(target string, manifest []byte) error {
	switch target {
	case KubeletConfiguration:
		_, err := kubeletconfig.Decode(manifest)
		return err
	case CoreDNSDeployment:
		return yaml.UnmarshalStrict(manifest, &appsv1.Deployment{})
	}
	_, err := templates.Decode(manifest)
	return err
}

// Deployment returns the Deployment of CoreDNS with the patches for it applied.
func Deployment(o *unstructured.Unstructured, patches []config.Patch) (*unstructured.Unstructured, error) {
	manifest, err := o.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("marshalling Deployment %q: %w", o.GetName(), err)
	}
	if manifest, err = Apply(CoreDNSDeployment, manifest, patches); err != nil {
		return nil, err
	}
	patched := &unstructured.Unstructured{}
	if err := patched.UnmarshalJSON(manifest); err != nil {
		return nil, fmt.Errorf("reading the patched Deployment %q: %w", o.GetName(), err)
	}
	return patched, nil
}

// Pod returns pod with the patches for its name applied, or pod itself where there is none.
func Pod(pod *corev1.Pod, patches []config.Patch) (*corev1.Pod, error) {
	manifest, err := json.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("marshalling pod %q: %w", pod.Name, err)
	}
	patched, err := Apply(pod.Name, manifest, patches)
	if err != nil {
		return nil, err
	}
	return templates.Decode(patched)
}
