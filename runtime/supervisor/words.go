package supervisor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// How much of a container's last words is kept: the kubelet's limits. Kubernetes v1.36.3
// pkg/kubelet/container/runtime.go:811.
const (
	maxMessage  = 4096 // bytes of its termination message
	maxLog      = 2048 // bytes of its log
	maxLogLines = 80
)

// lastWords is what a container's status says about its end: the runtime's message, and what the container wrote to its
// termination log or, if it wrote nothing, failed, and asks for it, the end of its log.
func lastWords(st *runtimeapi.ContainerStatus) string {
	if st.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		return st.GetMessage()
	}
	words := terminationMessage(st)
	if words == "" && st.GetExitCode() != 0 && st.GetStartedAt() != 0 &&
		st.GetAnnotations()[podspec.AnnotationTerminationMessagePolicy] == string(corev1.TerminationMessageFallbackToLogsOnError) {
		words = logEnd(st.GetLogPath())
	}
	switch {
	case words == "":
		return st.GetMessage()
	case st.GetMessage() == "":
		return words
	}
	return st.GetMessage() + ": " + words
}

// terminationMessage reads the file that is mounted at the container's terminationMessagePath: this also finds it for a
// container that a kubelet made, which gives the file a name of its own.
func terminationMessage(st *runtimeapi.ContainerStatus) string {
	path := st.GetAnnotations()[podspec.AnnotationTerminationMessagePath]
	for _, m := range st.GetMounts() {
		if path == "" || m.GetContainerPath() != path {
			continue
		}
		data, err := readEnd(m.GetHostPath(), maxMessage)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return ""
		case err != nil:
			return fmt.Sprintf("reading the termination message: %v", err)
		}
		return strings.ToValidUTF8(string(data), "�")
	}
	return ""
}

func readEnd(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-most), most))
}

func logEnd(path string) string {
	lines, err := status.Tail(path, maxLogLines)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		return fmt.Sprintf("reading the end of the log: %v", err)
	}
	text := strings.Join(lines, "\n")
	return strings.ToValidUTF8(text[max(0, len(text)-maxLog):], "�")
}
