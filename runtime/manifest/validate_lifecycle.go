package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateLifecycle follows validateLifecycle of Kubernetes v1.36.3, pkg/apis/core/validation. A port that is named and
// that the container has not is refused here, where a kubelet finds it out when the hook runs.
func validateLifecycle(l *corev1.Lifecycle, c *corev1.Container, pod *corev1.Pod, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	hooks := []struct {
		name string
		hook *corev1.LifecycleHandler
	}{{"postStart", l.PostStart}, {"preStop", l.PreStop}}
	for _, h := range hooks {
		if h.hook == nil {
			continue
		}
		at := at.Child(h.name)
		errs = append(errs, validateHandler(at, c, h.hook.Exec, h.hook.HTTPGet, h.hook.TCPSocket, h.hook.Sleep != nil)...)
		if s := h.hook.Sleep; s != nil {
			if grace := *pod.Spec.TerminationGracePeriodSeconds; s.Seconds < 0 || s.Seconds > grace {
				errs = append(errs, field.Invalid(at.Child("sleep", "seconds"), s.Seconds, fmt.Sprintf("must be between 0 and terminationGracePeriodSeconds (%d)", grace)))
			}
		}
	}
	if s := l.StopSignal; s != nil {
		at := at.Child("stopSignal")
		switch {
		case pod.Spec.OS == nil || pod.Spec.OS.Name == "":
			errs = append(errs, field.Forbidden(at, "needs spec.os.name: linux"))
		case !isSignal(string(*s)):
			errs = append(errs, field.Invalid(at, *s, `expected a signal of Linux such as "SIGTERM" or "SIGRTMIN+3"`))
		}
	}
	return errs
}

// isSignal knows the signals of Kubernetes v1.36.3, pkg/apis/core/validation/validation.go:3539.
func isSignal(name string) bool {
	n := 0
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok {
		_, err := fmt.Sscanf(rest, "%d", &n)
		return err == nil && n >= 1 && n <= 15 && rest == fmt.Sprint(n)
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMAX-"); ok {
		_, err := fmt.Sscanf(rest, "%d", &n)
		return err == nil && n >= 1 && n <= 14 && rest == fmt.Sprint(n)
	}
	return slices.Contains(strings.Fields("SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL "+
		"SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG "+
		"SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMAX"), name)
}

// The API's bounds. Kubernetes v1.36.3 pkg/apis/core/validation/validation.go:3690.
const (
	maxRestartRules = 20
	maxExitCodes    = 255
)

// validateRestart holds for every kind of container alike.
func validateRestart(c *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	rules := at.Child("restartPolicyRules")
	switch {
	case c.RestartPolicy != nil:
		errs = oneOf(at.Child("restartPolicy"), *c.RestartPolicy,
			corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	case len(c.RestartPolicyRules) > 0:
		errs = append(errs, field.Required(at.Child("restartPolicy"), "restartPolicyRules need one, for the exits that none of them names"))
	}
	if len(c.RestartPolicyRules) > maxRestartRules {
		errs = append(errs, field.TooMany(rules, len(c.RestartPolicyRules), maxRestartRules))
	}
	for i, r := range c.RestartPolicyRules {
		at := rules.Index(i)
		errs = append(errs, oneOf(at.Child("action"), r.Action,
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(at.Child("exitCodes"), "a rule needs the exit codes that it is for"))
			continue
		}
		errs = append(errs, oneOf(at.Child("exitCodes", "operator"), r.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if n := len(r.ExitCodes.Values); n > maxExitCodes {
			errs = append(errs, field.TooMany(at.Child("exitCodes", "values"), n, maxExitCodes))
		}
	}
	return errs
}

func validateHTTPHeaders(headers []corev1.HTTPHeader, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, h := range headers {
		errs = append(errs, invalid(at.Index(i).Child("name"), h.Name, validation.IsHTTPHeaderName(h.Name))...)
	}
	return errs
}
