package cri

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ErrUnimplemented is wrapped by the error of a call that the runtime does not know, such as RuntimeConfig on
// containerd 1.6.
var ErrUnimplemented = errors.New("the container runtime does not implement the call")

// callError is a failed call. It reads as the runtime's own words without gRPC's "rpc error: code = …" around them, and
// keeps the gRPC status for the Is functions.
type callError struct {
	err   error
	limit time.Duration // the deadline this package set; 0 when it set none
}

func (e *callError) Error() string {
	s := status.Convert(e.err)
	switch {
	case s.Code() == codes.DeadlineExceeded && e.limit > 0:
		return fmt.Sprintf("no answer from the container runtime within %s", e.limit)
	case s.Code() == codes.DeadlineExceeded:
		return "no answer from the container runtime before the deadline"
	case s.Message() == "":
		return "the container runtime answered " + s.Code().String()
	default:
		return s.Message()
	}
}

func (e *callError) Unwrap() error { return e.err }

// Is lets errors.Is see the context's errors and ErrUnimplemented in a gRPC status.
func (e *callError) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return status.Code(e.err) == codes.DeadlineExceeded
	case context.Canceled:
		return status.Code(e.err) == codes.Canceled
	case ErrUnimplemented:
		return status.Code(e.err) == codes.Unimplemented
	default:
		return false
	}
}

// IsNotFound reports whether err says that the sandbox, container or image does not exist.
func IsNotFound(err error) bool { return err != nil && status.Code(err) == codes.NotFound }

// IsTimeout reports that the runtime ended a call, such as a command in a container, at its deadline.
func IsTimeout(err error) bool { return err != nil && status.Code(err) == codes.DeadlineExceeded }

// IsUnavailable reports whether err says that the runtime cannot be reached, or is not ready for calls yet.
func IsUnavailable(err error) bool { return err != nil && status.Code(err) == codes.Unavailable }

// IsNameReserved reports whether err says that the name (name, namespace, uid, attempt) belongs to another sandbox or
// container, which may have exited or be in the making. The way out is to remove that one or to raise the attempt.
func IsNameReserved(err error) bool {
	return err != nil && strings.Contains(err.Error(), "is reserved for")
}

// IsStarting reports whether err says that a container is being started at this moment. containerd goes on with a start
// whose caller has died, for some seconds at most: then the container runs, or StartCutOff is true of it.
func IsStarting(err error) bool {
	return err != nil && strings.Contains(err.Error(), "is in starting state")
}

// IsStray reports whether err says that a container which the runtime shows as ended has a process all the same. containerd
// v1.6.20 services/tasks/local.go.
func IsStray(err error) bool {
	return err != nil && strings.Contains(err.Error(), "cannot delete running task")
}

// StartCutOff reports whether the runtime called off the start of a container because the caller that waited for it went
// away: its process never ran, and that is no fault of the container's. containerd shows it as exited, with the error of
// the call that it had under way: one that was canceled, or a program, its shim or runc, that it had killed.
func StartCutOff(st *runtimeapi.ContainerStatus) bool {
	return st.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED && st.GetReason() == "StartError" &&
		(strings.Contains(st.GetMessage(), context.Canceled.Error()) || strings.Contains(st.GetMessage(), "signal: killed"))
}

var reservedFor = regexp.MustCompile(`is reserved for "?([0-9A-Za-z_-]+)"?`)

// ReservedFor returns the id that holds the name, "" when err is not a reserved name or does not tell.
func ReservedFor(err error) string {
	if err == nil {
		return ""
	}
	if m := reservedFor.FindStringSubmatch(err.Error()); m != nil {
		return m[1]
	}
	return ""
}
