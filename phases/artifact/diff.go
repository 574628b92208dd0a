package artifact

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Diff returns the changes as text: one line for each (Change.String), followed by a unified diff of its contents. Of
// a secret it shows size and SHA-256 only. Unchanged files are left out, so equal trees give "".
func Diff(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		if c.Op == Unchanged {
			continue
		}
		b.WriteString(c.String())
		if secret(c) && c.Op != Chmod && !c.File().Mode.IsDir() {
			b.WriteString(": " + digests(c))
		}
		b.WriteString("\n")
		if !secret(c) {
			b.WriteString(udiff.Unified(label(c.Before), label(c.After), text(c.Before), text(c.After)))
		}
	}
	return b.String()
}

func secret(c Change) bool {
	return c.Before != nil && c.Before.Secret || c.After != nil && c.After.Secret
}

func digests(c Change) string {
	var parts []string
	for _, f := range []*File{c.Before, c.After} {
		if f != nil {
			parts = append(parts, fmt.Sprintf("%d bytes, sha256 %x", len(f.Data), sha256.Sum256(f.Data)))
		}
	}
	return "secret, " + strings.Join(parts, " → ")
}

func label(f *File) string {
	if f == nil {
		return "/dev/null"
	}
	return f.Path
}

func text(f *File) string {
	if f == nil {
		return ""
	}
	return string(f.Data)
}
