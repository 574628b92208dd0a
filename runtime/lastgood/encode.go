package lastgood

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// file is the form of a stored record.
type file struct {
	// SHA256 of Record, in hex: a file that was damaged on disk is none.
	SHA256 string          `json:"sha256"`
	Record json.RawMessage `json:"record"`
}

type content struct {
	Pod      string     `json:"pod"` // full name
	Good     *good      `json:"good,omitempty"`
	Rejected *Rejection `json:"rejected,omitempty"`
}

type good struct {
	Pod      *corev1.Pod `json:"pod"`
	UID      string      `json:"uid"`
	SpecHash string      `json:"specHash"`
	Source   string      `json:"source"`
}

func encode(fullName string, record Record) ([]byte, error) {
	c := content{Pod: fullName, Rejected: record.Rejected}
	if g := record.Good; g != nil {
		c.Good = &good{Pod: g.Pod, UID: g.UID, SpecHash: g.SpecHash, Source: g.Source}
	}
	inner, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encoding the last good version of %s", fullName) // the cause might repeat a value
	}
	data, err := json.Marshal(file{SHA256: sum(inner), Record: inner})
	if err != nil {
		return nil, fmt.Errorf("encoding the last good version of %s", fullName)
	}
	if len(data) >= maxFile {
		return nil, fmt.Errorf("storing the last good version of %s: it has %d bytes, more than %d", fullName, len(data), maxFile)
	}
	return append(data, '\n'), nil
}

func decode(data []byte, fullName string) (Record, error) {
	c, err := open(data)
	if err != nil {
		return Record{}, err
	}
	record := Record{Rejected: c.Rejected}
	if g := c.Good; g != nil && g.Pod != nil {
		record.Good = &manifest.StaticPod{Pod: g.Pod, UID: g.UID, SpecHash: g.SpecHash, Source: g.Source}
	}
	switch {
	case c.Pod != fullName:
		return Record{}, errors.New("it is another pod's")
	case c.Good != nil && (record.Good == nil || record.Good.FullName() != fullName || record.Good.UID == "" || record.Good.SpecHash == ""):
		return Record{}, errors.New("it is incomplete")
	}
	return record, nil
}

// open returns the content of a file whose checksum is right.
func open(data []byte) (content, error) {
	if len(data) > maxFile {
		return content{}, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return content{}, errors.New("it is no JSON")
	}
	if sum(f.Record) != f.SHA256 {
		return content{}, errors.New("its checksum is wrong")
	}
	var c content
	if err := json.Unmarshal(f.Record, &c); err != nil {
		return content{}, errors.New("it holds no pod")
	}
	return c, nil
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
