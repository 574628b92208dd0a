package etcd

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// message is one encoded message. The numbers of its fields are those of etcd v3.6 api/etcdserverpb/rpc.proto.
type message []byte

// codec passes messages through as they are.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, fmt.Errorf("encoding a %T: not a message", v)
	}
	return *m, nil
}

func (codec) Unmarshal(data []byte, v any) error {
	m, ok := v.(*message)
	if !ok {
		return fmt.Errorf("decoding into a %T: not a message", v)
	}
	*m = append(message(nil), data...)
	return nil
}

func plaintext() credentials.TransportCredentials { return insecure.NewCredentials() }

// field is one field of a message: number for a varint, data for bytes.
type field struct {
	id     protowire.Number
	number uint64
	data   []byte
}

var errDamaged = errors.New("etcd's answer cannot be decoded")

// fields decodes a message and calls each for every varint and every bytes field; others are passed over.
func (m message) fields(each func(field) error) error {
	for len(m) > 0 {
		id, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			return errDamaged
		}
		m = m[n:]
		f := field{id: id}
		switch kind {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(m)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(m)
		default:
			n = protowire.ConsumeFieldValue(id, kind, m)
		}
		if n < 0 {
			return errDamaged
		}
		m = m[n:]
		if kind == protowire.VarintType || kind == protowire.BytesType {
			if err := each(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func parseStatus(m message) (Status, error) {
	var s Status
	err := m.fields(func(f field) error {
		switch f.id {
		case 1:
			return message(f.data).fields(func(h field) error { // ResponseHeader
				switch h.id {
				case 1:
					s.ClusterID = h.number
				case 2:
					s.MemberID = h.number
				case 3:
					s.Revision = int64(h.number)
				}
				return nil
			})
		case 2:
			s.Version = string(f.data)
		case 3:
			s.Size = int64(f.number)
		}
		return nil
	})
	return s, err
}

func rangeRequest(key string) message {
	m := protowire.AppendTag(nil, 1, protowire.BytesType)
	return protowire.AppendString(m, key)
}

func parseRange(m message) ([]byte, error) {
	var value []byte
	err := m.fields(func(f field) error {
		if f.id != 2 {
			return nil
		}
		value = []byte{}
		return message(f.data).fields(func(kv field) error { // mvccpb.KeyValue
			if kv.id == 5 {
				value = append(value, kv.data...)
			}
			return nil
		})
	})
	return value, err
}

func parseMembers(m message) ([]Member, error) {
	var members []Member
	err := m.fields(func(f field) error {
		if f.id != 2 {
			return nil
		}
		var one Member
		err := message(f.data).fields(func(v field) error {
			switch v.id {
			case 1:
				one.ID = v.number
			case 2:
				one.Name = string(v.data)
			case 3:
				one.PeerURLs = append(one.PeerURLs, string(v.data))
			}
			return nil
		})
		members = append(members, one)
		return err
	})
	return members, err
}

func updateRequest(id uint64, peerURLs []string) message {
	m := protowire.AppendTag(nil, 1, protowire.VarintType)
	m = protowire.AppendVarint(m, id)
	for _, u := range peerURLs {
		m = protowire.AppendTag(m, 2, protowire.BytesType)
		m = protowire.AppendString(m, u)
	}
	return m
}

// part is one message of a snapshot's stream.
type part struct {
	remaining int64
	blob      []byte
}

func parseSnapshot(m message) (part, error) {
	var p part
	err := m.fields(func(f field) error {
		switch f.id {
		case 2:
			p.remaining = int64(f.number)
		case 3:
			p.blob = f.data
		}
		return nil
	})
	return p, err
}
