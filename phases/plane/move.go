package plane

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// Move is what changes about a node: its address, its name, or both. An equal pair changes nothing.
type Move struct {
	From, To         netip.Addr
	FromName, ToName string
}

// Check returns what is wrong with the move.
func (m Move) Check() error {
	switch {
	case !m.To.IsValid() || m.To.IsUnspecified() || m.To.IsMulticast():
		return fmt.Errorf("%s is not an address that a node can have", m.To)
	case m.From.Is4() != m.To.Is4():
		return fmt.Errorf("%s and %s are of different families: the addresses of services stay as they are, and an API server has the family of its services", m.From, m.To)
	}
	return nil
}

// Text returns a text with the old address replaced wherever it stands by itself: 192.0.2.1 is no part of 192.0.2.10.
func (m Move) Text(text string) string {
	if m.From == m.To {
		return text
	}
	old := m.From.String()
	var b strings.Builder
	before := ""
	for {
		i := strings.Index(text, old)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		end := i + len(old)
		b.WriteString(text[:i])
		if continues(before+text[:i], text[end:], m.From.Is6()) {
			b.WriteString(old)
		} else {
			b.WriteString(m.To.String())
		}
		before, text = old, text[end:]
	}
}

// continues tells whether the address between two texts is part of a longer one.
func continues(before, after string, six bool) bool {
	const hex = "0123456789abcdefABCDEF:"
	const digits = "0123456789"
	last := func(set string) bool { return before != "" && strings.IndexByte(set, before[len(before)-1]) >= 0 }
	first := func(text, set string) bool { return text != "" && strings.IndexByte(set, text[0]) >= 0 }
	if six {
		return last(hex) || first(after, hex)
	}
	return last(digits+".") || first(after, digits) || first(after, ".") && first(after[1:], digits)
}

// Manifest returns a component's manifest after the move: the address wherever it stands, and the name of etcd's member.
// What else the file says stays, comments too.
func (m Move) Manifest(name string, f artifact.File) artifact.File {
	text := m.Text(string(f.Data))
	if name == Etcd && m.FromName != m.ToName {
		for _, flag := range []string{"--name=" + m.FromName, "--initial-cluster=" + m.FromName + "="} {
			moved := strings.Replace(flag, "="+m.FromName, "="+m.ToName, 1)
			text = regexp.MustCompile(regexp.QuoteMeta(flag)+`(["'\s]|https?:|$)`).ReplaceAllString(text, strings.ReplaceAll(moved, "$", "$$")+"${1}")
		}
	}
	f.Data = []byte(text)
	return f
}

// Names returns a certificate's alternative names after the move.
func (m Move) Names(names []string) []string {
	var out []string
	for _, n := range names {
		switch {
		case n == m.From.String():
			n = m.To.String()
		case n == m.FromName && m.FromName != "":
			n = m.ToName
		}
		out = append(out, n)
	}
	return out
}
