package kubeapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conflict is a field that somebody else has set to another value.
type conflict struct {
	field   string // as the API server spells paths: .spec.containers[name="coredns"].image
	manager string // by whom, as the API server says it
}

// conflictsOf returns the fields for which the server refused an apply, none for other errors.
func conflictsOf(err error) []conflict {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	var list []conflict
	for _, c := range status.Status().Details.Causes {
		if c.Type == metav1.CauseTypeFieldManagerConflict {
			list = append(list, conflict{c.Field, strings.TrimPrefix(c.Message, "conflict with ")})
		}
	}
	return list
}

// keptText is the warning about fields that were left as they are.
func keptText(r Ref, kept []conflict) string {
	var list []string
	for _, k := range kept {
		list = append(list, fmt.Sprintf("%s (set by %s)", k.field, k.manager))
	}
	slices.Sort(list)
	return fmt.Sprintf("%s: kept what somebody else has set: %s; to set it to slipway's value, run the phase again with --force-conflicts",
		r, strings.Join(slices.Compact(list), ", "))
}

// cut removes the field from an object and reports whether it was there.
func (c conflict) cut(o map[string]any) bool { return cutMap(o, c.field) }

// cutMap removes what the path leads to. A key may have dots in it, which the server does not mark, so every key that
// fits is tried.
func cutMap(m map[string]any, path string) bool {
	rest, ok := strings.CutPrefix(path, ".")
	if !ok {
		return false
	}
	for key, value := range m {
		below, ok := strings.CutPrefix(rest, key)
		if !ok {
			continue
		}
		if below == "" {
			delete(m, key)
			return true
		}
		switch v := value.(type) {
		case map[string]any:
			if cutMap(v, below) {
				return true
			}
		case []any:
			if left, ok := cutList(v, below); ok {
				m[key] = left
				return true
			}
		}
	}
	return false
}

// cutList removes what the path leads to from an item of the list, or the item itself.
func cutList(list []any, path string) ([]any, bool) {
	for end := 0; ; end++ { // a value may have a bracket in it
		next := strings.IndexByte(path[end:], ']')
		if next < 0 || path[0] != '[' {
			return list, false
		}
		end += next
		keys, ok := parseKeys(path[1:end])
		if !ok {
			continue
		}
		i := slices.IndexFunc(list, func(item any) bool { return hasKeys(item, keys) })
		if i < 0 {
			continue
		}
		if below := path[end+1:]; below != "" {
			item, isMap := list[i].(map[string]any)
			return list, isMap && cutMap(item, below)
		}
		return slices.Delete(slices.Clone(list), i, i+1), true
	}
}

// parseKeys reads name="dns",port=53, or ="value" for an item of a set, whose key is "".
func parseKeys(s string) (map[string]any, bool) {
	keys := map[string]any{}
	for s != "" {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			return nil, false
		}
		d := json.NewDecoder(strings.NewReader(rest))
		var value any
		if err := d.Decode(&value); err != nil {
			return nil, false
		}
		keys[key] = value
		s = strings.TrimPrefix(rest[d.InputOffset():], ",")
	}
	return keys, len(keys) > 0
}

func hasKeys(item any, keys map[string]any) bool {
	for key, want := range keys {
		have := item
		if key != "" {
			m, ok := item.(map[string]any)
			if !ok {
				return false
			}
			have = m[key]
		}
		if fmt.Sprint(have) != fmt.Sprint(want) { // a number is an int64 here and a float64 there
			return false
		}
	}
	return true
}
