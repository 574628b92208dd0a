package lifecycle

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
)

// ContainerHash is the value of the annotation io.kubernetes.container.hash: lower-case hex of 32 bits, not padded.
// It covers the image as the manifest writes it and the name, nothing else, and equals the kubelet's since 1.31: it
// hashes the decimal print of the bytes of {"image":…,"name":…}. Kubernetes v1.36.3 pkg/kubelet/container/helpers.go:192.
func ContainerHash(name, image string) string {
	b, err := json.Marshal(struct {
		Image string `json:"image"`
		Name  string `json:"name"`
	}{image, name})
	if err != nil {
		panic("lifecycle: marshalling two strings: " + err.Error())
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "([]uint8)%v", b)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}
