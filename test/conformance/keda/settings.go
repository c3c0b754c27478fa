package main

import (
	"crypto/rand"
	"crypto/rsa"
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

// settings makes what upstream's continuous integration deploys KEDA with, and the flags that tell ebb of
// it: a file of credentials, and an authority to trust. Tests have that from a folder shared by all, and
// sign with it; one that is there already serves.
func settings(dir, shared string) (flags []string, err error) {
	certificate, err := authority(filepath.Join(shared, "keda-e2e-ca.crt"), filepath.Join(shared, "keda-e2e-ca.key"))
	if err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	for path, content := range map[string][]byte{
		"auth/creds.json": []byte(`{"authMode":"bearer","token":"e2e-mock-test-bearer-token"}`),
		"ca/test-ca.crt":  certificate,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return nil, fmt.Errorf("making settings: %w", err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, fmt.Errorf("making settings: %w", err)
		}
	}
	return []string{"--filepath-auth-root-path", filepath.Join(dir, "auth"), "--ca-dir", filepath.Join(dir, "ca")}, nil
}

// authority gives the certificate in a file, after making it and its key where there is none.
func authority(certificate, key string) ([]byte, error) {
	content, err := os.ReadFile(certificate)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return content, err
	}
	const bits = 4096
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{Organization: []string{"KEDA's tests"}},
		NotBefore: now, NotAfter: now.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	made, err := x509.CreateCertificate(rand.Reader, ca, ca, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	content = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})
	keyContent := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	if err := os.WriteFile(key, keyContent, 0o600); err != nil {
		return nil, err
	}
	return content, os.WriteFile(certificate, content, 0o600)
}
