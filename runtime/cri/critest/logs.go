package critest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// WriteLog appends text to the log of a running container as the runtime does: to the file that it opened, wherever
// that was moved since. The container is named by id.
func (r *Runtime) WriteLog(id, text string) error {
	r.mu.Lock()
	defer r.unlock()
	c, err := r.findContainer(id)
	if err != nil {
		return err
	}
	if c.log == nil {
		return fmt.Errorf("container %q has no log open", id)
	}
	_, err = c.log.WriteString(text)
	return err
}

// ReopenContainerLog implements the CRI. As containerd does, it makes the file but not its directory.
func (r *Runtime) ReopenContainerLog(_ context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, status.Error(codes.Unknown, "container is not running")
	}
	if err := r.openLog(c); err != nil {
		return nil, status.Errorf(codes.Unknown, "failed to create container loggers: %v", err)
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}

// openLog opens the container's log in place of the one that is open, which it leaves alone when it fails.
func (r *Runtime) openLog(c *container) error {
	path := c.logPath()
	if path == "" || !r.options.Logs {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	c.closeLog()
	c.log = f
	return nil
}

func (c *container) closeLog() {
	if c.log != nil {
		_ = c.log.Close()
		c.log = nil
	}
}

func (c *container) logPath() string {
	if c.config.GetLogPath() == "" || c.sandbox.config.GetLogDirectory() == "" {
		return ""
	}
	return filepath.Join(c.sandbox.config.GetLogDirectory(), c.config.GetLogPath())
}
