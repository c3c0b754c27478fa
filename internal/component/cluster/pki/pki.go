// Package pki makes and keeps the cluster's keys and certificates in a folder.
//
// Everything is made on first use and made again when it is near its end, no longer says what is
// asked, or was signed by another authority; so the same calls at every start are also the renewal.
// The folder is readable by its owner only.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	authorityLife = 20 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	// renewBefore is how long before its end a certificate is made again.
	renewBefore = 60 * 24 * time.Hour
	// backdate lets machines with slightly late clocks accept a fresh certificate.
	backdate = 5 * time.Minute
)

// Pair is where a certificate and its key are kept, both PEM.
type Pair struct {
	CertFile string
	KeyFile  string
}

func pairIn(dir, name string) Pair {
	return Pair{CertFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key")}
}

// Key loads the private key of that name from dir, making it the first time. It returns the files of
// the private key and of its public half.
func Key(dir, name string) (private, public string, err error) {
	private, public = filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	key, err := readKey(private)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newKey()
		if err == nil {
			err = writeKey(private, key)
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("preparing key %s: %w", name, err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", "", fmt.Errorf("encoding public key %s: %w", name, err)
	}
	return private, public, writePEM(public, "PUBLIC KEY", der)
}

func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func newTemplate(now time.Time, life time.Duration, subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject,
		NotBefore:             now.Add(-backdate).UTC(),
		NotAfter:              now.Add(life).UTC(),
		BasicConstraintsValid: true,
	}, nil
}

func readPair(p Pair) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(p.CertFile)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, nil, fmt.Errorf("reading %s: no certificate in it", p.CertFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", p.CertFile, err)
	}
	key, err := readKey(p.KeyFile)
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("reading %s: certificate and key do not belong together", p.CertFile)
	}
	return cert, key, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "EC PRIVATE KEY" {
		return nil, fmt.Errorf("reading %s: no key in it", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return key, nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding key: %w", err)
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

// writePEM replaces the file whole, so that a crash leaves the old one or the new one.
func writePEM(path, kind string, der []byte) error {
	return WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// WriteFile replaces a file that only its owner may read, whole or not at all.
func WriteFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("making folder for %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
