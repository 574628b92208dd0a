package config

import "slices"

// kubelet takes over the user's KubeletConfiguration. What it says about the runtime's socket holds for init too.
func (b *builder) kubelet() {
	const field = "KubeletConfiguration.containerRuntimeEndpoint"
	b.out.Kubelet = slices.Clone(b.docs.kubeletJSON)
	endpoint := b.docs.kubelet.ContainerRuntimeEndpoint
	if endpoint == "" {
		return
	}
	socket := b.socket(field, endpoint)
	switch b.out.CRISocket {
	case "":
		b.out.CRISocket = socket
	case socket:
	default:
		b.problemf(field, "%q is not the runtime of nodeRegistration.criSocket, %q; keep one", endpoint, b.out.CRISocket)
	}
}
