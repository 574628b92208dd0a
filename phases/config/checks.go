package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The checks below return the value in the form that the Cluster holds. They report what is wrong with it under the
// field's name.

// absolute returns a path without its redundant parts. An empty one is fine: the caller has a default, or needs none.
func (r *report) absolute(field, path string) string {
	if path == "" {
		return ""
	}
	if !filepath.IsAbs(path) {
		r.problemf(field, "%q is not an absolute path", path)
	}
	return filepath.Clean(path)
}

// positive returns a duration, or the default where none is given.
func (r *report) positive(field string, d *metav1.Duration, byDefault time.Duration) time.Duration {
	if d == nil {
		return byDefault
	}
	if d.Duration <= 0 {
		r.problemf(field, "%s: wanted a duration above zero", d.Duration)
	}
	return d.Duration
}

// dnsName reports a name that is not a DNS-1123 subdomain.
func (r *report) dnsName(field, name string) {
	if reasons := validation.IsDNS1123Subdomain(name); len(reasons) > 0 {
		r.problemf(field, "%s", quoted(name, reasons[0]))
	}
}

// altNames returns subject alternative names in lower case, as kubeadm has them, without those that occur twice.
func (r *report) altNames(field string, names []string) []string {
	var out []string
	for i, name := range names {
		lower := strings.ToLower(name)
		if addr, err := netip.ParseAddr(lower); err == nil && addr.Zone() == "" {
			lower = addr.String()
		} else if len(validation.IsDNS1123Subdomain(lower)) > 0 && len(validation.IsWildcardDNS1123Subdomain(lower)) > 0 {
			hint := ""
			if strings.Contains(name, "://") || strings.Contains(name, "/") {
				hint = "; leave out scheme and path"
			} else if host, _, ok := strings.Cut(name, ":"); ok && host != "" {
				hint = "; leave out the port"
			}
			r.problemf(element(field, i), "%q is not an IP address, a DNS name or a wildcard such as *.example.com%s", name, hint)
			continue
		}
		if !slices.Contains(out, lower) {
			out = append(out, lower)
		}
	}
	return out
}

// oneOf reports a value that is not among the known ones.
func (r *report) oneOf(field, value string, known ...string) {
	if !slices.Contains(known, value) {
		r.problemf(field, "%q: wanted %s%s", value, alternatives(known), didYouMean(value, known))
	}
}

// alternatives joins words: "a, b or c".
func alternatives(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// element returns the path of a list's element.
func element(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// quoted puts a value before the reason why it is refused.
func quoted(value, reason string) string { return fmt.Sprintf("%q: %s", value, reason) }
