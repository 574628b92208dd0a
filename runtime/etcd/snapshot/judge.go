package snapshot

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Target is the cluster into which a snapshot is to be restored.
type Target struct {
	Cluster string // UID of its namespace kube-system; "" where its data is lost or encrypted
	Trust   []byte // the certificate authority on disk, PEM-encoded
}

// Belongs returns nil where the snapshot is one of the target. The UIDs of kube-system tell; where one of them is not
// known, the certificate authorities do. Where these are not known either, nothing speaks against it.
func (i Info) Belongs(t Target) error {
	switch {
	case i.Cluster != "" && t.Cluster != "":
		if i.Cluster != t.Cluster {
			return fmt.Errorf("it is of another cluster: its namespace kube-system has the UID %s, that of this cluster %s", i.Cluster, t.Cluster)
		}
		return nil
	case len(i.Trust) == 0 || len(t.Trust) == 0:
		return nil
	}
	theirs, err := certificates(i.Trust)
	if err != nil {
		return fmt.Errorf("reading the certificate authority in it: %w", err)
	}
	ours, err := certificates(t.Trust)
	if err != nil {
		return fmt.Errorf("reading the certificate authority on disk: %w", err)
	}
	for _, a := range theirs {
		for _, b := range ours {
			if bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo) {
				return nil
			}
		}
	}
	return errors.New("it is of another cluster: the certificate authority in it is not the one on disk")
}

func certificates(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return list, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
}
