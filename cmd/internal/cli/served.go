package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// endpoint is where a pod serves TLS, and the file with the certificate that it serves there.
type endpoint struct{ address, file string }

// endpointsOf are those of etcd and of the API server, by the flags in their manifests; other pods have none that is
// looked at.
func endpointsOf(pod *corev1.Pod, paths config.Paths) []endpoint {
	if len(pod.Spec.Containers) == 0 {
		return nil
	}
	flags := flagsOf(append(pod.Spec.Containers[0].Command[:len(pod.Spec.Containers[0].Command):len(pod.Spec.Containers[0].Command)], pod.Spec.Containers[0].Args...))
	switch {
	case strings.HasPrefix(pod.Name, "kube-apiserver"):
		port := flags["secure-port"]
		if port == "" {
			port = "6443"
		}
		host := flags["bind-address"]
		if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
			host = flags["advertise-address"]
		}
		return []endpoint{{net.JoinHostPort(host, port), filepath.Join(paths.PKI, "apiserver.crt")}}
	case strings.HasPrefix(pod.Name, "etcd"):
		var all []endpoint
		for flag, file := range map[string]string{"listen-client-urls": "etcd/server.crt", "listen-peer-urls": "etcd/peer.crt"} {
			for address := range strings.SplitSeq(flags[flag], ",") {
				if u, err := url.Parse(address); err == nil && u.Scheme == "https" {
					all = append(all, endpoint{u.Host, filepath.Join(paths.PKI, file)})
				}
			}
		}
		return all
	}
	return nil
}

// flagsOf returns the values of flags given as --name=value; the last of a name wins.
func flagsOf(command []string) map[string]string {
	flags := map[string]string{}
	for _, arg := range command {
		if name, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "="); ok && strings.HasPrefix(arg, "--") {
			flags[name] = value
		}
	}
	return flags
}

// servesNew is a check that every endpoint of a pod serves the certificate that is on disk.
func servesNew(pod *corev1.Pod, paths config.Paths) func(context.Context) error {
	endpoints := endpointsOf(pod, paths)
	return func(ctx context.Context) error {
		for _, e := range endpoints {
			data, err := os.ReadFile(e.file)
			if err != nil {
				return err
			}
			want, err := pki.ParseCertificates(data)
			if err != nil {
				return fmt.Errorf("reading %q: %w", e.file, err)
			}
			got, err := served(ctx, e.address)
			if err != nil {
				return err
			}
			if !got.Equal(want[0]) {
				return fmt.Errorf("%s serves the certificate with serial %x, not the %x of %s", e.address, got.SerialNumber, want[0].SerialNumber, e.file)
			}
		}
		return nil
	}
}

// dialTimeout bounds one look at what is served.
const dialTimeout = 5 * time.Second

// served returns the certificate that a server shows. Whether it asks for one of the client does not matter: by then it
// has shown its own.
func served(ctx context.Context, address string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var shown *x509.Certificate
	dialer := tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // which certificate it is, is the question; nothing is sent
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 {
				shown = s.PeerCertificates[0]
			}
			return nil
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if conn != nil {
		conn.Close() //nolint:errcheck // nothing was sent
	}
	switch {
	case shown != nil:
		return shown, nil
	case err != nil:
		return nil, fmt.Errorf("asking %s for its certificate: %w", address, err)
	}
	return nil, fmt.Errorf("asking %s for its certificate: %w", address, errors.New("it showed none"))
}
