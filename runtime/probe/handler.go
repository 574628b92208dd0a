package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxOutput bounds, in bytes, what is kept of a probe's output.
const maxOutput = 1 << 10

// handler tries a probe once within ctx, whose deadline is timeout away. failed is why the probe failed, "" if it
// succeeded; an error says nothing about the container.
type handler func(ctx context.Context, podIP string, timeout time.Duration) (failed string, err error)

func newHandler(c *container, p *corev1.Probe) handler {
	switch {
	case p.Exec != nil:
		return execHandler(c, p.Exec)
	case p.HTTPGet != nil:
		return httpHandler(c.spec, p.HTTPGet)
	case p.TCPSocket != nil:
		return tcpHandler(c.spec, p.TCPSocket)
	case p.GRPC != nil:
		return grpcHandler(c, p.GRPC)
	default:
		return func(context.Context, string, time.Duration) (string, error) {
			return "", errors.New("the probe names no action")
		}
	}
}

func execHandler(c *container, a *corev1.ExecAction) handler {
	cmd := expand(a.Command, c.spec.Env)
	return func(ctx context.Context, _ string, timeout time.Duration) (string, error) {
		if c.set.deps.Exec == nil {
			return "", errors.New("nothing to run commands with")
		}
		output, exit, err := c.set.deps.Exec(ctx, c.id, cmd, timeout)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Sprintf("command timed out after %s", timeout), nil
		case err != nil:
			return "", err
		case exit == 0:
			return "", nil
		}
		if output = strings.TrimSpace(output); output == "" {
			return fmt.Sprintf("exit code %d", exit), nil
		}
		return clip(fmt.Sprintf("exit code %d: %s", exit, output)), nil
	}
}

func tcpHandler(spec *corev1.Container, a *corev1.TCPSocketAction) handler {
	var dialer net.Dialer
	return func(ctx context.Context, podIP string, _ time.Duration) (string, error) {
		addr, err := address(spec, a.Host, podIP, a.Port)
		if err != nil {
			return "", err
		}
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err != nil {
			return clip(err.Error()), nil
		}
		conn.Close()
		return "", nil
	}
}

func grpcHandler(c *container, a *corev1.GRPCAction) handler {
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	return func(ctx context.Context, podIP string, _ time.Duration) (string, error) {
		if c.set.deps.GRPC == nil {
			return "", errors.New("nothing to ask health services with")
		}
		addr, err := address(c.spec, "", podIP, intstr.FromInt32(a.Port))
		if err != nil {
			return "", err
		}
		if err := c.set.deps.GRPC(ctx, addr, service); err != nil {
			return clip(err.Error()), nil
		}
		return "", nil
	}
}

// address returns host:port; host defaults to the pod's, and the port may be a name among the container's.
func address(spec *corev1.Container, host, podIP string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = podIP
	}
	if host == "" {
		return "", errors.New("the pod has no address yet")
	}
	n, err := portNumber(spec, port)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(n)), nil
}

func portNumber(spec *corev1.Container, port intstr.IntOrString) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range spec.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("port %q is neither a number nor a name among the container's ports", port.String())
	}
	return n, nil
}

func clip(s string) string {
	if len(s) > maxOutput {
		return strings.ToValidUTF8(s[:maxOutput], "") + "…"
	}
	return s
}

// expand replaces $(NAME) in a command by the container's literal variables; "$$" is a dollar sign, and what is not
// known stays as it is. Variables with valueFrom are not known to probes.
func expand(cmd []string, env []corev1.EnvVar) []string {
	values := map[string]string{}
	for _, e := range env {
		if e.ValueFrom == nil {
			values[e.Name] = expandOne(e.Value, values)
		}
	}
	out := make([]string, len(cmd))
	for i, s := range cmd {
		out[i] = expandOne(s, values)
	}
	return out
}

func expandOne(s string, values map[string]string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				b.WriteByte('$')
				continue
			}
			if value, ok := values[s[i+2:i+end]]; ok {
				b.WriteString(value)
			} else {
				b.WriteString(s[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}
