package config

import "encoding/json"

// kubelet takes over the user's KubeletConfiguration. What it says about the runtime's socket holds for init too.
func (b *builder) kubelet() {
	const field = "KubeletConfiguration.containerRuntimeEndpoint"
	normal := map[string]string{}
	if b.docs.kubelet.StaticPodPath != "" {
		normal["staticPodPath"] = b.out.Paths.Manifests
	}
	if endpoint := b.docs.kubelet.ContainerRuntimeEndpoint; endpoint != "" {
		socket := b.socket(field, endpoint)
		switch b.out.CRISocket {
		case "":
			b.out.CRISocket = socket
		case socket:
		default:
			b.problemf(field, "%q is not the runtime of nodeRegistration.criSocket, %q; keep one", endpoint, b.out.CRISocket)
		}
		normal["containerRuntimeEndpoint"] = socket
	}
	b.out.Kubelet = b.normalized(normal)
}

// normalized returns the user's KubeletConfiguration with some of its fields in the form that the Cluster has them in,
// so that "/a/" and "/a" are one path to all that compare them.
func (b *builder) normalized(fields map[string]string) []byte {
	if b.docs.kubeletJSON == nil {
		return nil
	}
	var document map[string]json.RawMessage
	if err := json.Unmarshal(b.docs.kubeletJSON, &document); err != nil {
		b.problemf("KubeletConfiguration", "reading it back: %s", err)
		return nil
	}
	for name, value := range fields {
		text, err := json.Marshal(value)
		if err != nil {
			b.problemf("KubeletConfiguration."+name, "%s", err)
			continue
		}
		document[name] = text
	}
	data, err := json.Marshal(document)
	if err != nil {
		b.problemf("KubeletConfiguration", "writing it back: %s", err)
	}
	return data
}
