// Package runtime groups the static-pod supervisor: manifests in, running containers out.
package runtime
