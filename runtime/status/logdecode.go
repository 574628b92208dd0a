package status

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxLine bounds what is kept of a line whose end has not come: the CRI's own lines have at most 16 KiB.
const maxLine = 1 << 20

// decoder turns the CRI log format, "TIME STREAM TAG TEXT" with tag P for a part of a line and F for its end, into the
// container's own output. Bytes after the last newline wait for the rest of their line.
type decoder struct {
	timestamps bool      // before each line
	since      time.Time // what was written earlier is left out
	skip       int       // so many more lines are left out

	text   bytes.Buffer // decoded
	rest   []byte
	within bool // the line has begun
	drop   bool // it is left out
}

// copy decodes what is left of r to out.
func (d *decoder) copy(out io.Writer, r io.Reader) error {
	chunk := make([]byte, 64<<10)
	for {
		n, err := r.Read(chunk)
		d.decode(chunk[:n])
		if _, werr := d.text.WriteTo(out); werr != nil {
			return fmt.Errorf("writing log lines: %w", werr)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a log: %w", err)
		}
	}
}

func (d *decoder) decode(data []byte) {
	d.rest = append(d.rest, data...)
	for {
		line, rest, whole := bytes.Cut(d.rest, []byte("\n"))
		if !whole && len(d.rest) <= maxLine {
			return
		}
		d.line(line)
		d.rest = rest
	}
}

// line decodes one line of the file.
func (d *decoder) line(line []byte) {
	at, text, end := parse(line)
	if !d.within {
		d.drop = d.skip > 0 || d.early(at)
		if !d.drop && d.timestamps && len(at) > 0 {
			d.text.Write(at)
			d.text.WriteByte(' ')
		}
	}
	if !d.drop {
		d.text.Write(text)
		if end {
			d.text.WriteByte('\n')
		}
	}
	if end && d.skip > 0 {
		d.skip--
	}
	d.within = !end
}

// early tells whether a line is older than what is asked for. Lines are in order: after the first that is not, none is.
func (d *decoder) early(at []byte) bool {
	if d.since.IsZero() {
		return false
	}
	t, err := time.Parse(time.RFC3339Nano, string(at))
	if err == nil && t.Before(d.since) {
		return true
	}
	d.since = time.Time{}
	return false
}

// parse takes a line of the file apart. What is no CRI log line is text.
func parse(line []byte) (at, text []byte, end bool) {
	at, rest, ok := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tag, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || !ok3 || string(stream) != "stdout" && string(stream) != "stderr" {
		return nil, line, true
	}
	return at, text, string(tag) != "P"
}

// countLines counts the decoded lines of r that have an end.
func countLines(r io.Reader) (lines int, err error) {
	chunk := make([]byte, 64<<10)
	var head []byte // of the line under way, as far as parse looks
	for {
		n, err := r.Read(chunk)
		for data := chunk[:n]; len(data) > 0; {
			line, rest, whole := bytes.Cut(data, []byte("\n"))
			if room := 128 - len(head); room > 0 {
				head = append(head, line[:min(room, len(line))]...)
			}
			if whole {
				if _, _, end := parse(head); end {
					lines++
				}
				head = head[:0]
			}
			data = rest
		}
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return 0, fmt.Errorf("reading a log: %w", err)
		}
	}
}
