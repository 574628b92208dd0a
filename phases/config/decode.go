package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// decoder fills Go values from YAML nodes by their json names. It goes on after a problem, notes the line of every
// field that it meets, and leaves what it could not read at its zero value.
type decoder struct {
	*report
	elsewhere map[string]string // field name → its path, for fields written at the wrong place
}

// decode reads a node into a pointer. Null leaves the value as it is.
func (d *decoder) decode(n *yaml.Node, field string, into any) {
	d.value(n, field, reflect.ValueOf(into).Elem())
}

func (d *decoder) value(n *yaml.Node, field string, v reflect.Value) {
	if n.ShortTag() == "!!null" {
		return
	}
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		d.value(n, field, p.Elem())
		v.Set(p)
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *metav1.Duration:
		d.duration(n, field, target)
		return
	case json.Unmarshaler:
		d.viaJSON(n, field, v)
		return
	case encoding.TextUnmarshaler:
		if n.Kind != yaml.ScalarNode {
			d.mismatch(n, field, "a string")
		} else if err := target.UnmarshalText([]byte(n.Value)); err != nil {
			d.unreadable(d.line(n, field), field, "%q: %s", n.Value, err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, field, v)
	case reflect.Map:
		d.mapping(n, field, v)
	case reflect.Slice:
		d.list(n, field, v)
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" && n.ShortTag() != "!!timestamp" {
			d.mismatch(n, field, "a string")
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		d.boolean(n, field, v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64:
		d.number(n, field, v)
	default:
		d.viaJSON(n, field, v)
	}
}

func (d *decoder) structure(n *yaml.Node, field string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(n, field, "a mapping")
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := join(field, key.Value)
		if first, ok := seen[key.Value]; ok {
			d.unreadable(key.Line, path, "set twice; the first is on line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		d.lines[path] = key.Line
		f, ok := fields[key.Value]
		if !ok {
			d.unreadable(key.Line, path, "unknown field%s", d.hint(key.Value, fields))
			continue
		}
		d.value(value, path, v.FieldByIndex(f.Index))
	}
}

// hint says what an unknown field may have been meant to be.
func (d *decoder) hint(name string, siblings map[string]reflect.StructField) string {
	if place, ok := d.elsewhere[name]; ok {
		return "; it belongs at " + place
	}
	return didYouMean(name, slices.Collect(maps.Keys(siblings)))
}

func (d *decoder) mapping(n *yaml.Node, field string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(n, field, "a mapping")
		return
	}
	if v.Type().Key().Kind() != reflect.String {
		d.viaJSON(n, field, v)
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		path := join(field, key.Value)
		if first, ok := seen[key.Value]; ok {
			d.unreadable(key.Line, path, "set twice; the first is on line %d", first)
			continue
		}
		seen[key.Value] = key.Line
		d.lines[path] = key.Line
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(n.Content[i+1], path, element)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), element)
	}
}

func (d *decoder) list(n *yaml.Node, field string, v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		d.viaJSON(n, field, v) // base64
		return
	}
	if n.Kind != yaml.SequenceNode {
		wanted := "a list"
		if v.Type().Elem() == reflect.TypeFor[arg]() && n.Kind == yaml.MappingNode {
			wanted = `a list of {name, value}, as v1beta4 has it ("- name: v" and "value: \"2\"" for --v=2)`
		}
		d.mismatch(n, field, wanted)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		path := fmt.Sprintf("%s[%d]", field, i)
		d.lines[path] = c.Line
		d.value(c, path, out.Index(i))
	}
	v.Set(out)
}

// boolean takes the words of YAML 1.1 too, which kubeadm's parser reads, and leaves the plain word in the node.
func (d *decoder) boolean(n *yaml.Node, field string, v reflect.Value) {
	plain := n.Kind == yaml.ScalarNode && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0
	switch word := strings.ToLower(n.Value); {
	case plain && slices.Contains([]string{"true", "yes", "on", "y"}, word):
		n.Tag, n.Value = "!!bool", "true"
		v.SetBool(true)
	case plain && slices.Contains([]string{"false", "no", "off", "n"}, word):
		n.Tag, n.Value = "!!bool", "false"
		v.SetBool(false)
	default:
		d.mismatch(n, field, "true or false")
	}
}

func (d *decoder) number(n *yaml.Node, field string, v reflect.Value) {
	float := v.Kind() == reflect.Float32 || v.Kind() == reflect.Float64
	if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!int" && (!float || tag != "!!float") {
		wanted := "a whole number"
		if float {
			wanted = "a number"
		}
		d.mismatch(n, field, wanted)
		return
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		d.unreadable(d.line(n, field), field, "%s is out of range", n.Value)
	}
}

func (d *decoder) duration(n *yaml.Node, field string, into *metav1.Duration) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		d.mismatch(n, field, `a duration such as "4m0s"`)
		return
	}
	parsed, err := time.ParseDuration(n.Value)
	if err != nil {
		d.unreadable(d.line(n, field), field, `%q is not a duration; write it as "8760h" or "4m30s"`, n.Value)
		return
	}
	into.Duration = parsed
}

// viaJSON reads the types that bring their own JSON form, such as quantities.
func (d *decoder) viaJSON(n *yaml.Node, field string, v reflect.Value) {
	data, err := nodeJSON(n)
	if err == nil {
		err = json.Unmarshal(data, v.Addr().Interface())
	}
	if err != nil {
		d.unreadable(d.line(n, field), field, "%s", err)
	}
}

// mismatch records a value of the wrong type.
func (d *decoder) mismatch(n *yaml.Node, field, wanted string) {
	hint := ""
	if wanted == "a string" && n.Kind == yaml.ScalarNode {
		hint = fmt.Sprintf(`; put it in quotes: "%s"`, n.Value)
	}
	d.unreadable(d.line(n, field), field, "wanted %s, found %s%s", wanted, describe(n), hint)
}

// line returns where the field begins: its key, where it has one, since a block's value begins a line later.
func (d *decoder) line(n *yaml.Node, field string) int {
	if line := d.lines[field]; line > 0 {
		return line
	}
	return n.Line
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + n.Value
	case "!!bool":
		return "the boolean " + n.Value
	}
	return "the string " + strconv.Quote(n.Value)
}

// fieldsOf returns the fields of a struct type by their json names, those of inlined structs among them.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || name == "" {
			continue // an inlined struct has no name: its fields are visible by themselves
		}
		fields[name] = f
	}
	return fields
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}
