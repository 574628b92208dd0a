package config

import (
	"encoding/hex"
	"regexp"
	"slices"
	"time"
)

// What a token is unless the file says otherwise: kubeadm v1.36.3 apis/bootstraptoken/v1/defaults.go.
const (
	defaultTokenTTL   = 24 * time.Hour
	defaultTokenGroup = "system:bootstrappers:kubeadm:default-node-token"
)

// placeholderToken is what kubeadm prints as a default and all of its documentation shows: a token that everyone knows.
const placeholderToken = "abcdef.0123456789abcdef"

// certificateKeySize is that of an AES-256 key, in bytes.
const certificateKeySize = 32

var (
	tokenForm  = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	tokenGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// tokens settles with what further nodes join: one token that is made, unless the file or --token names others.
func (b *builder) tokens() {
	given := b.docs.init.BootstrapTokens
	if len(given) == 0 {
		given = []bootstrapToken{{}}
	}
	first := map[string]int{}
	for i, t := range given {
		field := element("bootstrapTokens", i)
		token := b.token(field, t)
		if same, ok := first[token.ID]; ok && token.ID != "" {
			b.problemf(field+".token", "its first six characters are those of %s too: in the cluster both would be one", element("bootstrapTokens", same))
		}
		first[token.ID] = i
		b.out.BootstrapTokens = append(b.out.BootstrapTokens, token)
	}
}

// token returns a token with kubeadm's defaults applied. No message shows the token that was given: it is a secret.
func (b *builder) token(field string, t bootstrapToken) BootstrapToken {
	out := BootstrapToken{Description: t.Description, TTL: defaultTokenTTL, Usages: slices.Clone(t.Usages), Groups: slices.Clone(t.Groups)}
	out.ID, out.Secret = b.tokenParts(field+".token", t.Token)
	switch {
	case t.TTL != nil && t.Expires != nil:
		b.problemf(field, "ttl and expires are both set; keep one")
	case t.Expires != nil:
		out.TTL, out.Expires = 0, t.Expires.UTC()
	case t.TTL != nil && t.TTL.Duration < 0:
		b.problemf(field+".ttl", "%s: wanted a duration, or 0 for a token that never expires", t.TTL.Duration)
	case t.TTL != nil:
		out.TTL = t.TTL.Duration
	}
	if len(out.Usages) == 0 {
		out.Usages = []string{"signing", "authentication"}
	}
	for i, usage := range out.Usages {
		b.oneOf(element(field+".usages", i), usage, "signing", "authentication")
	}
	authenticates := slices.Contains(out.Usages, "authentication")
	for i, group := range out.Groups {
		at := element(field+".groups", i)
		switch {
		case !tokenGroup.MatchString(group):
			b.problemf(at, "%q is not a group of tokens such as %s", group, defaultTokenGroup)
		case !authenticates:
			b.problemf(at, "a token has groups only where usages has authentication; add it, or leave out the groups")
		}
	}
	if authenticates && len(out.Groups) == 0 {
		out.Groups = []string{defaultTokenGroup}
	}
	return out
}

// tokenParts returns both halves of a token; none for "", and none for the placeholder, which the file may carry since
// kubeadm prints it.
func (b *builder) tokenParts(field, token string) (id, secret string) {
	switch flag := b.flags[field]; {
	case token == "" && flag == "":
		return "", ""
	case token == placeholderToken && flag == "":
		b.warnf(field, "is kubeadm's placeholder, which everyone knows; a token is made instead")
		return "", ""
	case token == placeholderToken:
		b.problemf(field, "this is kubeadm's placeholder, which everyone knows; leave it out to have a token made")
		return "", ""
	}
	if !b.tokenText(field, token) {
		return "", ""
	}
	parts := tokenForm.FindStringSubmatch(token)
	return parts[1], parts[2]
}

// tokenText reports what is no token, without showing it. None is fine.
func (b *builder) tokenText(field, token string) bool {
	ok := token == "" && b.flags[field] == "" || tokenForm.MatchString(token)
	if !ok {
		b.problemf(field, "is not a token: wanted 6 lower-case letters and digits, a dot, and 16 more of them, as in %s", placeholderToken)
	}
	return ok
}

// keyText reports what is no certificate key, without showing it. None is fine.
func (b *builder) keyText(field, key string) bool {
	if key == "" && b.flags[field] == "" {
		return true
	}
	raw, err := hex.DecodeString(key)
	if err != nil || len(raw) != certificateKeySize {
		b.problemf(field, "is not a key: wanted %d hexadecimal digits, found %d characters", 2*certificateKeySize, len(key))
		return false
	}
	return true
}

// certificateKey settles whether, and with what key, the certificate authorities are put into the cluster.
func (b *builder) certificateKey() {
	const field = "certificateKey"
	key := b.docs.init.CertificateKey
	b.out.UploadCerts, b.out.CertificateKey = b.docs.uploadCerts, key
	if b.keyText(field, key) && key != "" && !b.out.UploadCerts {
		b.warnf(field, "has no effect without --upload-certs")
	}
}
