package kubeapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// final is an error of our own, which no further attempt changes.
type final struct{ err error }

func (f *final) Error() string { return f.err.Error() }
func (f *final) Unwrap() error { return f.err }

// transient reports whether another attempt may do better: the server cannot be reached, is starting, has lost its
// etcd's leader, is overloaded, or somebody else was faster.
func transient(err error) bool {
	if errors.As(err, new(*final)) || errors.As(err, new(*tls.CertificateVerificationError)) {
		return false
	}
	status, ok := err.(apierrors.APIStatus)
	if !ok && !errors.As(err, &status) {
		return true // not an answer
	}
	s := status.Status()
	switch {
	case s.Code == 429 || s.Code >= 500 || s.Code == 410:
		return true
	case s.Reason == metav1.StatusReasonConflict:
		return len(conflictsOf(err)) == 0
	case s.Reason == metav1.StatusReasonNotFound:
		// An API server makes the namespaces of the system after it has become ready.
		return s.Details != nil && s.Details.Kind == "namespaces" && strings.HasPrefix(s.Details.Name, "kube-")
	}
	return false
}

// retryAfter is how long the server asks to be left alone.
func retryAfter(err error) time.Duration {
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		return time.Duration(seconds) * time.Second
	}
	return 0
}

// isNoSuchObject reports whether the object is not there, while the namespace it belongs to may be.
func isNoSuchObject(err error, r Ref) bool {
	return apierrors.IsNotFound(err) && !transient(err)
}

// explain says what the last error means for somebody who has to act on it.
func (l *Live) explain(ctx context.Context, err error) error {
	path := l.options.Admin
	if l.super {
		path = l.options.SuperAdmin
	}
	switch {
	case ctx.Err() != nil && context.Cause(ctx) != err:
		if errors.Is(err, errPending) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w; the last answer was: %w", context.Cause(ctx), err)
	case apierrors.IsNotFound(err):
		return ErrNotFound
	case apierrors.IsAlreadyExists(err):
		return ErrExists
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not accept the credentials in %s (%w): they may have expired, or belong to another cluster", path, err)
	case apierrors.IsForbidden(err) && !l.super:
		return fmt.Errorf("%w; if this is the administrator, the binding kubeadm:cluster-admins is missing: slipway init phase cluster-admins", err)
	}
	return err
}

// equal reports whether the objects are the same but for what servers and controllers keep in them: versions, who
// manages which field, and the status.
func equal(a, b *unstructured.Unstructured) bool {
	bare := func(o *unstructured.Unstructured) map[string]any {
		o = o.DeepCopy()
		o.SetManagedFields(nil)
		o.SetResourceVersion("")
		delete(o.Object, "status")
		return o.Object
	}
	return reflect.DeepEqual(bare(a), bare(b))
}
