package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

func TestSettings(t *testing.T) {
	dir, shared := t.TempDir(), t.TempDir()
	flags, err := settings(dir, shared)
	if err != nil {
		t.Fatal(err)
	}
	if len(flags) != 4 || flags[1] != filepath.Join(dir, "auth") || flags[3] != filepath.Join(dir, "ca") {
		t.Fatalf("flags are %q", flags)
	}
	if _, err := os.Stat(filepath.Join(flags[1], "creds.json")); err != nil {
		t.Error(err)
	}
	trusted, err := os.ReadFile(filepath.Join(flags[3], "test-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(shared, "keda-e2e-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(trusted, key); err != nil {
		t.Errorf("what tests sign with is not what is trusted: %v", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(trusted) {
		t.Error("the certificate cannot be read")
	}

	again := t.TempDir()
	if _, err := settings(again, shared); err != nil {
		t.Fatal(err)
	}
	same, err := os.ReadFile(filepath.Join(again, "ca", "test-ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(same, trusted) {
		t.Error("an authority that was there is not used")
	}
}
