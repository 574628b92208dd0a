package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// registryTimeout is how long preflight waits for a registry. It is asked only when an image is missing, and it
// covers a name server that does not answer.
const registryTimeout = 3 * time.Second

// pingRegistry returns a function that asks whether a registry host answers at all; any HTTP status will do.
func pingRegistry(proxies map[string]string) func(context.Context, string) error {
	proxy := (&httpproxy.Config{
		HTTPSProxy: variable(proxies, "https_proxy"), NoProxy: variable(proxies, "no_proxy"),
	}).ProxyFunc()
	client := &http.Client{
		Transport: &http.Transport{
			Proxy:             func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, name string) error {
		ctx, cancel := context.WithTimeout(ctx, registryTimeout)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/v2/", nil)
		if err != nil {
			return fmt.Errorf("registry %q: %w", name, err)
		}
		answer, err := client.Do(request)
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("registry %s did not answer within %s", name, registryTimeout)
		}
		if err != nil {
			return fmt.Errorf("registry %s does not answer: %w", name, errors.Unwrap(err))
		}
		io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16)) //nolint:errcheck // only that it answered counts
		return answer.Body.Close()
	}
}

// variable prefers the lower-case spelling, as Go's own proxy settings do not; most tools write it so.
func variable(proxies map[string]string, name string) string {
	if v := proxies[name]; v != "" {
		return v
	}
	return proxies[strings.ToUpper(name)]
}

// registryOf returns the host of a complete reference.
func registryOf(ref string) string {
	host, _, found := strings.Cut(ref, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return "registry-1.docker.io"
	}
	return host
}

// unreachable asks the registries of refs side by side, and returns the refs whose registry does not answer, with the
// last reason.
func unreachable(ctx context.Context, refs []string, ping func(context.Context, string) error) ([]string, string) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs = map[string]error{}
	)
	var names []string
	for _, ref := range refs {
		names = append(names, registryOf(ref))
	}
	for _, name := range compactSorted(names) {
		wg.Go(func() {
			err := ping(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			errs[name] = err
		})
	}
	wg.Wait()
	var lost []string
	reason := ""
	for _, ref := range refs {
		if err := errs[registryOf(ref)]; err != nil {
			lost, reason = append(lost, ref), err.Error()
		}
	}
	return lost, reason
}
