package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// PEM block types, as kubeadm writes them.
const (
	certificateBlock = "CERTIFICATE"
	publicKeyBlock   = "PUBLIC KEY"
	rsaKeyBlock      = "RSA PRIVATE KEY"
	ecKeyBlock       = "EC PRIVATE KEY"
	pkcs8KeyBlock    = "PRIVATE KEY"
)

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: der})
}

// EncodeKey returns the private key as kubeadm writes it: PKCS #1 for RSA, SEC 1 for ECDSA.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: rsaKeyBlock, Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("encoding an ECDSA key: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: ecKeyBlock, Bytes: der}), nil
	}
	return nil, fmt.Errorf("encoding a key: %T is neither RSA nor ECDSA", key)
}

func encodePublicKey(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicKeyBlock, Bytes: der}), nil
}

// ParseCertificates returns the certificates of a PEM file, at least one. Blocks of other types are passed over, for
// files that hold the key as well.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	blocks, err := decodeBlocks(data)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, b := range blocks {
		if b.Type != certificateBlock {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it is damaged: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("it holds %q but no %q", blocks[0].Type, certificateBlock)
	}
	return certs, nil
}

// ParseKey returns the first private key of a PEM file.
func ParseKey(data []byte) (crypto.Signer, error) {
	blocks, err := decodeBlocks(data)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key is encrypted; bring it without a passphrase, as nobody can type one when the node boots")
		}
		var key any
		var err error
		switch b.Type {
		case rsaKeyBlock:
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		case ecKeyBlock:
			key, err = x509.ParseECPrivateKey(b.Bytes)
		case pkcs8KeyBlock:
			key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
		default:
			continue // such as EC PARAMETERS
		}
		if err != nil {
			return nil, fmt.Errorf("the key is damaged: %w", err)
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case *ecdsa.PrivateKey:
			return k, nil
		}
		return nil, fmt.Errorf("the key is a %s; Kubernetes takes RSA and ECDSA", strings.TrimPrefix(fmt.Sprintf("%T", key), "*"))
	}
	return nil, fmt.Errorf("it holds %q but no private key", blocks[0].Type)
}

// parsePublicKeys returns every public key of a PEM file; the API server takes several, while keys are rotated.
func parsePublicKeys(data []byte) ([]crypto.PublicKey, error) {
	blocks, err := decodeBlocks(data)
	if err != nil {
		return nil, err
	}
	var keys []crypto.PublicKey
	for _, b := range blocks {
		var key any
		var err error
		switch b.Type {
		case publicKeyBlock:
			key, err = x509.ParsePKIXPublicKey(b.Bytes)
		case "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(b.Bytes)
		case certificateBlock:
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(b.Bytes); err == nil {
				key = c.PublicKey
			}
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("public key %d in it is damaged: %w", len(keys)+1, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("it holds %q but no public key", blocks[0].Type)
	}
	return keys, nil
}

// decodeBlocks returns the PEM blocks of a file, at least one, and says what is wrong with a file that ends too soon.
func decodeBlocks(data []byte) ([]*pem.Block, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("the file is empty")
	}
	var blocks []*pem.Block
	rest := data
	for {
		b, after := pem.Decode(rest)
		if b == nil {
			break
		}
		blocks, rest = append(blocks, b), after
	}
	// Decode passes over what it cannot read, so the count tells whether it did.
	begin := []byte("-----BEGIN ")
	if bytes.Count(data, begin) > len(blocks) {
		tail := data[bytes.LastIndex(data, begin)+len(begin):]
		kind, _, _ := bytes.Cut(tail, []byte("-----"))
		if !bytes.Contains(tail, []byte("-----END "+string(kind)+"-----")) {
			return nil, fmt.Errorf("the file is truncated: %q begins and does not end", kind)
		}
		return nil, errors.New("the file is damaged: it has a BEGIN line without a valid PEM block")
	}
	if len(blocks) == 0 {
		return nil, errors.New("the file is not PEM: it has no BEGIN line")
	}
	return blocks, nil
}

// samePublicKey reports whether the private key belongs to pub.
func samePublicKey(key crypto.Signer, pub crypto.PublicKey) bool {
	p, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && p.Equal(pub)
}
