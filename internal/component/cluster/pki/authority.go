package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

// Authority signs certificates; its own is self-signed.
type Authority struct {
	Pair

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Leaf says what a certificate must show. Server and Client choose its extended key usages.
type Leaf struct {
	Name   string // of the files, and the common name unless CommonName is set
	Common string
	Groups []string // organizations: Kubernetes reads them as the user's groups
	DNS    []string
	IPs    []netip.Addr
	Server bool
	Client bool
}

// LoadAuthority returns the authority of that name kept in dir, making it the first time and again
// when it would end before a certificate signed now.
func LoadAuthority(dir, name string, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making key folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("protecting key folder: %w", err)
	}
	a := &Authority{Pair: pairIn(dir, name), dir: dir}
	cert, key, err := readPair(a.Pair)
	switch {
	case err == nil && now.Add(leafLife+renewBefore).Before(cert.NotAfter):
		a.cert, a.key = cert, key
		return a, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("loading authority %s: %w", name, err)
	}
	if err := a.make(name, now); err != nil {
		return nil, fmt.Errorf("making authority %s: %w", name, err)
	}
	return a, nil
}

func (a *Authority) make(name string, now time.Time) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	t, err := newTemplate(now, authorityLife, pkix.Name{CommonName: name})
	if err != nil {
		return err
	}
	t.IsCA = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	// The certificate is written last: a crash in between leaves no certificate without its key.
	if err := os.Remove(a.CertFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeKey(a.KeyFile, key); err != nil {
		return err
	}
	return writePEM(a.CertFile, "CERTIFICATE", der)
}

// PEM is the authority's certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool trusts this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue returns the leaf's files, signing it anew only if the one there does not do any more.
func (a *Authority) Issue(l Leaf, now time.Time) (Pair, error) {
	p := pairIn(a.dir, l.Name)
	cert, _, err := readPair(p)
	if err == nil && a.good(cert, l, now) {
		return p, nil
	}
	if err := a.sign(p, l, now); err != nil {
		return Pair{}, fmt.Errorf("issuing certificate %s: %w", l.Name, err)
	}
	return p, nil
}

func (a *Authority) sign(p Pair, l Leaf, now time.Time) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	t, err := newTemplate(now, leafLife, l.subject())
	if err != nil {
		return err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = l.usages()
	t.DNSNames = l.DNS
	t.IPAddresses = l.addresses()
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	if err := writeKey(p.KeyFile, key); err != nil {
		return err
	}
	return writePEM(p.CertFile, "CERTIFICATE", der)
}

// good tells whether cert shows what l asks, is signed by a, and lasts.
func (a *Authority) good(cert *x509.Certificate, l Leaf, now time.Time) bool {
	if now.Before(cert.NotBefore) || now.Add(renewBefore).After(cert.NotAfter) || cert.CheckSignatureFrom(a.cert) != nil {
		return false
	}
	want := l.subject()
	return cert.Subject.CommonName == want.CommonName &&
		slices.Equal(cert.Subject.Organization, want.Organization) &&
		slices.Equal(cert.DNSNames, l.DNS) &&
		slices.Equal(cert.ExtKeyUsage, l.usages()) &&
		slices.EqualFunc(cert.IPAddresses, l.addresses(), net.IP.Equal)
}

func (l Leaf) subject() pkix.Name {
	common := l.Common
	if common == "" {
		common = l.Name
	}
	return pkix.Name{CommonName: common, Organization: l.Groups}
}

func (l Leaf) usages() []x509.ExtKeyUsage {
	var out []x509.ExtKeyUsage
	if l.Server {
		out = append(out, x509.ExtKeyUsageServerAuth)
	}
	if l.Client {
		out = append(out, x509.ExtKeyUsageClientAuth)
	}
	return out
}

func (l Leaf) addresses() []net.IP {
	out := make([]net.IP, 0, len(l.IPs))
	for _, ip := range l.IPs {
		out = append(out, net.IP(ip.AsSlice()))
	}
	return out
}
