package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/youmark/pkcs8"
)

// A Certificate is what triggers take to know a server and to be known by it, as PEM.
type Certificate struct {
	CA, Cert, Key, KeyPassword string
	// Unsafe has any server be believed.
	Unsafe bool
}

// TLS returns the configuration for a client with a certificate, from the one of all clients, which
// may be nil.
func (c Certificate) TLS(base *tls.Config) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		config = base.Clone()
	}
	config.InsecureSkipVerify = c.Unsafe
	if c.Cert != "" && c.Key != "" {
		key := []byte(c.Key)
		if c.KeyPassword != "" {
			var err error
			if key, err = decrypt(key, c.KeyPassword); err != nil {
				return nil, fmt.Errorf("decrypting the key: %w", err)
			}
		}
		pair, err := tls.X509KeyPair([]byte(c.Cert), key)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate and its key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if c.CA != "" {
		roots, err := roots(config)
		if err != nil {
			return nil, err
		}
		if !roots.AppendCertsFromPEM([]byte(c.CA)) {
			return nil, errors.New("reading the authorities: there is no certificate among them")
		}
		config.RootCAs = roots
	}
	return config, nil
}

func roots(config *tls.Config) (*x509.CertPool, error) {
	if config.RootCAs != nil {
		return config.RootCAs.Clone(), nil
	}
	return x509.SystemCertPool()
}

func decrypt(key []byte, password string) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	plain, err := pkcs8.ParsePKCS8PrivateKey(block.Bytes, []byte(password))
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(plain)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
