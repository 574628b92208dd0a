package config

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// DefaultKubernetesVersion is what is deployed unless the user names another version, and what kubeadm's labels stable,
// stable-1 and stable-1.36 stand for: nothing is looked up in the network.
const DefaultKubernetesVersion = "v1.36.3"

const (
	oldestMinor = 34 // the oldest minor whose manifests are tested
	newestMinor = 36
)

// etcdTag is the etcd of Kubernetes 1.34 to 1.36, and pauseTag the sandbox image: kubeadm v1.36.3
// constants.SupportedEtcdVersion and PauseVersion, which it uses whatever the version that it deploys.
const (
	etcdTag  = "3.6.8-0"
	pauseTag = "3.10.2"
)

// defaultRepository has the images of the Kubernetes project.
const defaultRepository = "registry.k8s.io"

// version settles the version of Kubernetes.
func (b *builder) version() {
	const field = "kubernetesVersion"
	b.out.KubernetesVersion = DefaultKubernetesVersion
	given := b.docs.cluster.KubernetesVersion
	switch given {
	case "", "stable", "stable-1", fmt.Sprintf("stable-1.%d", newestMinor):
		return
	}
	if strings.HasPrefix(given, "stable") || strings.HasPrefix(given, "latest") || strings.HasPrefix(given, "ci/") {
		b.problemf(field, "%q would be looked up in the network; name a version, such as %s", given, DefaultKubernetesVersion)
		return
	}
	v, err := version.ParseSemantic(given)
	if err != nil {
		b.problemf(field, "%q is not a version; write it in full, such as %s", given, DefaultKubernetesVersion)
		return
	}
	if v.Major() != 1 || v.Minor() < oldestMinor || v.Minor() > newestMinor {
		b.problemf(field, "%q is not supported; this slipway deploys 1.%d to 1.%d", given, oldestMinor, newestMinor)
	}
	b.out.KubernetesVersion = "v" + v.String()
}

// images settles the complete references. The components of Kubernetes have its version as their tag.
func (b *builder) images() {
	repository := b.docs.cluster.ImageRepository
	if repository == "" {
		repository = defaultRepository
	}
	b.repository("imageRepository", repository)
	b.out.ImageRepository = repository

	tag := strings.ReplaceAll(b.out.KubernetesVersion, "+", "_") // a tag has no "+"
	b.out.Images = Images{
		APIServer:         repository + "/kube-apiserver:" + tag,
		ControllerManager: repository + "/kube-controller-manager:" + tag,
		Scheduler:         repository + "/kube-scheduler:" + tag,
		Pause:             repository + "/pause:" + pauseTag,
		CoreDNS:           b.coreDNSImage(repository),
	}
	if !b.out.ProxyDisabled {
		b.out.Images.KubeProxy = repository + "/kube-proxy:" + tag
	}
	if b.out.Etcd.Local == nil {
		return
	}
	etcdRepository, etcdImageTag := repository, etcdTag
	if local := b.docs.cluster.Etcd.Local; local != nil {
		if local.ImageRepository != "" {
			etcdRepository = local.ImageRepository
			b.repository("etcd.local.imageRepository", etcdRepository)
		}
		if local.ImageTag != "" {
			etcdImageTag = local.ImageTag
			b.tag("etcd.local.imageTag", etcdImageTag)
		}
	}
	b.out.Images.Etcd = etcdRepository + "/etcd:" + etcdImageTag
}

// tag reports what cannot stand behind the colon of an image. None is fine: there is a default.
func (b *builder) tag(field, tag string) {
	if tag != "" && !regexp.MustCompile(`^\w[\w.-]{0,127}$`).MatchString(tag) {
		b.problemf(field, "%q is not an image tag", tag)
	}
}

// repository reports a name that cannot stand before "/kube-apiserver:v1.36.3".
func (b *builder) repository(field, name string) {
	const part = `[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*`
	const host = `(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?`
	if regexp.MustCompile(`^(?:` + host + `|` + part + `)(?:/` + part + `)*$`).MatchString(name) {
		return
	}
	hint := ""
	if strings.Contains(name, "://") {
		hint = "; leave out the scheme"
	} else if strings.HasSuffix(name, "/") {
		hint = "; leave out the slash at the end"
	}
	b.problemf(field, "%q is not an image repository such as registry.example.com/k8s%s", name, hint)
}
