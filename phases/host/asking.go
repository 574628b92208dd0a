package host

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"
)

// What is asked of others has these bounds: preflight may be slower by one of them, never by their sum.
const (
	lookupTimeout  = time.Second
	etcdTimeout    = 3 * time.Second
	kubeletTimeout = 2 * time.Second
)

// Lookup is what a name resolved to.
type Lookup struct {
	Addresses []netip.Addr
	Err       string // why there are none
}

// lookUp asks the hosts file, then DNS, for as long as lookupTimeout.
func lookUp(ctx context.Context, name string) Lookup {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	resolver := net.Resolver{PreferGo: true} // the C library's does not end with ctx
	found, err := resolver.LookupNetIP(ctx, "ip", name)
	if ctx.Err() != nil {
		return Lookup{Err: "DNS did not answer within " + seconds(lookupTimeout)}
	}
	if failed := (*net.DNSError)(nil); errors.As(err, &failed) && failed.IsNotFound {
		return Lookup{Err: "no such name"}
	}
	if err != nil {
		return Lookup{Err: err.Error()}
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return Lookup{Addresses: found}
}

// ExternalEtcd names an etcd cluster to be asked for its version.
type ExternalEtcd struct {
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
}

// EtcdVersion is what one endpoint answered.
type EtcdVersion struct {
	Endpoint string
	Version  string
	Err      string // why there is none
}

func (i inspector) etcdVersions(ctx context.Context, etcd ExternalEtcd) []EtcdVersion {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	settings, err := i.etcdTLS(etcd)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // whether the files are there has a check of its own
	}
	if err != nil { // the API server could not use them either
		var all []EtcdVersion
		for _, endpoint := range etcd.Endpoints {
			all = append(all, EtcdVersion{Endpoint: endpoint, Err: err.Error()})
		}
		return all
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}}
	answers := make(chan EtcdVersion, len(etcd.Endpoints))
	for _, endpoint := range etcd.Endpoints {
		go func() { // ended by ctx, waited for below
			v := EtcdVersion{Endpoint: endpoint}
			version, err := etcdVersion(ctx, client, endpoint)
			if v.Version = version; err != nil {
				v.Err = err.Error()
			}
			answers <- v
		}()
	}
	byEndpoint := map[string]EtcdVersion{}
	for range etcd.Endpoints {
		v := <-answers
		byEndpoint[v.Endpoint] = v
	}
	var all []EtcdVersion
	for _, endpoint := range etcd.Endpoints {
		all = append(all, byEndpoint[endpoint])
	}
	return all
}

func (i inspector) etcdTLS(etcd ExternalEtcd) (*tls.Config, error) {
	settings := &tls.Config{}
	if etcd.CAFile != "" {
		pem, err := os.ReadFile(i.path(etcd.CAFile))
		if err != nil {
			return nil, err
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("its authority %s holds no certificate", etcd.CAFile)
		}
	}
	if etcd.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(i.path(etcd.CertFile), i.path(etcd.KeyFile))
		if err != nil {
			return nil, fmt.Errorf("its client certificate %s with the key %s: %w", etcd.CertFile, etcd.KeyFile, err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

func etcdVersion(ctx context.Context, client *http.Client, endpoint string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(endpoint, "/")+"/version", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if ctx.Err() != nil {
		return "", fmt.Errorf("no answer within %s", seconds(etcdTimeout))
	}
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var v struct {
		Server string `json:"etcdserver"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&v); err != nil || v.Server == "" {
		return "", fmt.Errorf("its answer to /version (%s) names none", resp.Status)
	}
	return v.Server, nil
}

// kubeletVersion asks the kubelet on PATH: "v1.36.3", or "" where there is none or it does not tell.
func kubeletVersion(ctx context.Context) string {
	program, err := exec.LookPath("kubelet")
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, kubeletTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = kubeletTimeout / 4 // a child of a wrapper script would keep its output open
	out, _ := cmd.Output()             // "Kubernetes v1.36.3"
	_, v, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	return v
}

// kernelConfig is the configuration that the kernel was built with, "" where it is nowhere to be read.
func (i inspector) kernelConfig(release string) string {
	if f, err := os.Open(i.path("/proc/config.gz")); err == nil {
		defer f.Close()
		if z, err := gzip.NewReader(f); err == nil {
			text, _ := io.ReadAll(io.LimitReader(z, 1<<20)) // 200 kB as a rule
			return string(text)
		}
	}
	return i.read("/boot/config-" + release)
}
