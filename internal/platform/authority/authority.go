// Package authority signs certificates for hosts with a key of ebb's own, which rests in a Secret.
//
// The authority lives for years, so that clients need to be told of it once; what it signs lives for
// days and is signed anew long before its end, so nothing has to be revoked.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 14 * 24 * time.Hour
	// renewBefore is how long before its end a leaf is signed anew: a machine that sleeps over a long
	// weekend still serves what is valid when it wakes.
	renewBefore = leafLife / 3
	// backdate lets machines with slightly late clocks accept a fresh certificate.
	backdate = 5 * time.Minute
)

// ErrOld is returned for an authority that would end before what it signs.
var ErrOld = errors.New("the authority is near its end")

// Pair is a certificate and its private key, both PEM.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// Authority signs certificates. It is immutable and safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pair Pair
}

// New makes an authority of that name.
func New(name string, now time.Time) (*Authority, error) {
	t, key, err := template(now, authorityLife)
	if err != nil {
		return nil, fmt.Errorf("making authority %s: %w", name, err)
	}
	t.Subject = pkix.Name{CommonName: name, Organization: []string{"ebb"}}
	t.IsCA, t.MaxPathLenZero = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	pair, err := sign(t, t, key, key)
	if err != nil {
		return nil, fmt.Errorf("making authority %s: %w", name, err)
	}
	return Load(pair, now)
}

// Load reads an authority; ErrOld means that another should be made.
func Load(p Pair, now time.Time) (*Authority, error) {
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		return nil, fmt.Errorf("loading authority: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("loading authority: the certificate may not sign others")
	}
	if now.Add(leafLife).After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("loading authority: %w: %s", ErrOld, pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &Authority{cert: pair.Leaf, key: key, pair: p}, nil
}

// Pair is the authority's own certificate and key.
func (a *Authority) Pair() Pair { return a.pair }

// PEM is the authority's certificate, which clients trust.
func (a *Authority) PEM() []byte { return a.pair.Certificate }

// Sign makes a key and a certificate for the hosts.
func (a *Authority) Sign(hosts []string, now time.Time) (Pair, error) {
	t, key, err := template(now, leafLife)
	if err != nil {
		return Pair{}, fmt.Errorf("signing for %v: %w", hosts, err)
	}
	// No common name: it is limited to 64 characters, and clients look at the alternative names only.
	t.Subject = pkix.Name{Organization: []string{"ebb"}}
	t.DNSNames = hosts
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	pair, err := sign(t, a.cert, key, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("signing for %v: %w", hosts, err)
	}
	return pair, nil
}

// A Judgement is what is to be known of a pair that may have been signed before.
type Judgement struct {
	Good  bool      // it is for these hosts, by this authority, and fresh
	Ends  time.Time // when it ends
	Renew time.Time // when it should be signed anew
}

// Judge looks at a pair that should be for the hosts. What cannot be read is not good.
func (a *Authority) Judge(p Pair, hosts []string, now time.Time) Judgement {
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		return Judgement{}
	}
	leaf := pair.Leaf
	j := Judgement{Ends: leaf.NotAfter, Renew: leaf.NotAfter.Add(-renewBefore)}
	j.Good = now.Before(j.Renew) && !now.Before(leaf.NotBefore) &&
		slices.Equal(leaf.DNSNames, hosts) && leaf.CheckSignatureFrom(a.cert) == nil
	return j
}

func template(now time.Time, life time.Duration) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-backdate).UTC(), NotAfter: now.Add(life).UTC(), BasicConstraintsValid: true,
	}, key, nil
}

func sign(t, parent *x509.Certificate, key *ecdsa.PrivateKey, by crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), by)
	if err != nil {
		return Pair{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}
