// Package bootstraptoken makes the tokens with which nodes join, and what a joining node finds with them.
package bootstraptoken

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
)

// What a bootstrap token is, see https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/ and
// k8s.io/cluster-bootstrap v0.36.3 token/api/types.go.
const (
	namespace  = "kube-system"
	secretType = "bootstrap.kubernetes.io/token"
	namePrefix = "bootstrap-token-"
	idLength   = 6
	keyLength  = 16

	keyID          = "token-id"
	keySecret      = "token-secret"
	keyExpiration  = "expiration"
	keyDescription = "description"
	keyGroups      = "auth-extra-groups"
	usagePrefix    = "usage-bootstrap-"
)

// DefaultTTL is how long a token can be used, as with kubeadm.
const DefaultTTL = 24 * time.Hour

// DefaultUsages and DefaultGroups are what a token is good for, as with kubeadm.
func DefaultUsages() []string { return []string{"signing", "authentication"} }
func DefaultGroups() []string { return []string{"system:bootstrappers:kubeadm:default-node-token"} }

var (
	wellFormed  = regexp.MustCompile(`\A([a-z0-9]{6})\.([a-z0-9]{16})\z`)
	wellFormID  = regexp.MustCompile(`\A[a-z0-9]{6}\z`)
	groupFormed = regexp.MustCompile(`\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`)
)

// Parse splits a token. The error shows no part of it.
func Parse(token string) (id, secret string, err error) {
	parts := wellFormed.FindStringSubmatch(token)
	if parts == nil {
		return "", "", errors.New("it is not of the form abcdef.0123456789abcdef: 6 and 16 lower-case letters or digits, with a dot between; slipway token generate makes one")
	}
	return parts[1], parts[2], nil
}

// ParseID returns the id of a token that is given by its id, or whole.
func ParseID(s string) (string, error) {
	if wellFormID.MatchString(s) {
		return s, nil
	}
	id, _, err := Parse(s)
	if err != nil {
		return "", errors.New("it is neither the id of a token, 6 lower-case letters or digits, nor a token, abcdef.0123456789abcdef; slipway token list shows them")
	}
	return id, nil
}

// Check returns what is wrong with a token's usages and groups, joined.
func Check(usages, groups []string) error {
	var errs []error
	for _, u := range usages {
		if !slices.Contains(DefaultUsages(), u) {
			errs = append(errs, fmt.Errorf("usage %q: known are signing and authentication", u))
		}
	}
	for _, g := range groups {
		if !groupFormed.MatchString(g) {
			errs = append(errs, fmt.Errorf("group %q: it must be system:bootstrappers: and then lower-case letters, digits, dashes and colons", g))
		}
	}
	if len(groups) > 0 && !slices.Contains(usages, "authentication") {
		errs = append(errs, errors.New("groups have no effect without the usage authentication"))
	}
	return errors.Join(errs...)
}

// Generate returns a new id and secret.
func Generate() (id, secret string) { return random(idLength), random(keyLength) }

// random returns n of 36 letters and digits, each as likely as the other.
func random(n int) string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	s := make([]byte, 0, n)
	for b := make([]byte, 1); len(s) < n; {
		rand.Read(b)     // never fails
		if b[0] < 7*36 { // the largest multiple of 36 in a byte
			s = append(s, letters[b[0]%36])
		}
	}
	return string(s)
}

// Text is the whole token.
func Text(t config.BootstrapToken) string { return t.ID + "." + t.Secret }

// Expiration returns when a token that is written now ends; zero is never.
func Expiration(t config.BootstrapToken, now time.Time) time.Time {
	if t.Expires.IsZero() && t.TTL > 0 {
		return now.Add(t.TTL)
	}
	return t.Expires
}

// Ref names the Secret of a token.
func Ref(id string) kubeapi.Ref {
	return kubeapi.Ref{APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: namePrefix + id}
}

// Secret returns the object that makes the token one. It ends at expires, zero for never.
func Secret(t config.BootstrapToken, expires time.Time) *unstructured.Unstructured {
	data := map[string]string{keyID: t.ID, keySecret: t.Secret}
	if t.Description != "" {
		data[keyDescription] = t.Description
	}
	if !expires.IsZero() {
		data[keyExpiration] = expires.UTC().Format(time.RFC3339)
	}
	for _, u := range t.Usages {
		data[usagePrefix+u] = "true"
	}
	if len(t.Groups) > 0 {
		data[keyGroups] = strings.Join(t.Groups, ",")
	}
	encoded := map[string]any{}
	for key, value := range data {
		encoded[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	r := Ref(t.ID)
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": r.APIVersion, "kind": r.Kind, "type": secretType,
		"metadata": map[string]any{"namespace": r.Namespace, "name": r.Name}, "data": encoded,
	}}
}

// FromSecret reads a token back. Its TTL is 0: Expires tells.
func FromSecret(o *unstructured.Unstructured) (config.BootstrapToken, error) {
	encoded, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return config.BootstrapToken{}, fmt.Errorf("%s: %w", kubeapi.RefOf(o), err)
	}
	data := map[string]string{}
	for key, value := range encoded {
		text, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			return config.BootstrapToken{}, fmt.Errorf("%s: %s: %w", kubeapi.RefOf(o), key, err)
		}
		data[key] = string(text)
	}
	t := config.BootstrapToken{ID: data[keyID], Secret: data[keySecret], Description: data[keyDescription]}
	if o.GetName() != namePrefix+t.ID {
		return t, fmt.Errorf("%s holds the token id %q, which is another's: no node can use it", kubeapi.RefOf(o), t.ID)
	}
	if _, _, err := Parse(Text(t)); err != nil {
		return t, fmt.Errorf("the token in %s: %w", kubeapi.RefOf(o), err)
	}
	if at := data[keyExpiration]; at != "" {
		if t.Expires, err = time.Parse(time.RFC3339, at); err != nil {
			return t, fmt.Errorf("%s: expiration %q is no time, so no node can use it", kubeapi.RefOf(o), at)
		}
	}
	for key, value := range data {
		if usage, ok := strings.CutPrefix(key, usagePrefix); ok && value == "true" {
			t.Usages = append(t.Usages, usage)
		}
	}
	slices.Sort(t.Usages)
	if g := data[keyGroups]; g != "" {
		t.Groups = strings.Split(g, ",")
	}
	return t, nil
}

// Selector is the field selector of the Secrets that are tokens.
const Selector = "type=" + secretType
