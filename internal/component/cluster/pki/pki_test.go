package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var day0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func authority(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := LoadAuthority(dir, "ca", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, l Leaf, now time.Time) *x509.Certificate {
	t.Helper()
	p, err := a.Issue(l, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := readPair(p)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestIssueKeepsWhatDoesAndReplacesTheRest(t *testing.T) {
	leaf := Leaf{Name: "api", Common: "api", Groups: []string{"g"}, DNS: []string{"localhost"}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Server: true}
	changed := func(f func(*Leaf)) Leaf {
		l := leaf
		f(&l)
		return l
	}
	cases := map[string]struct {
		leaf  Leaf
		later time.Duration
		kept  bool
	}{
		"same a day later":       {leaf, 24 * time.Hour, true},
		"same near its end":      {leaf, leafLife - renewBefore + time.Hour, false},
		"same after its end":     {leaf, leafLife + time.Hour, false},
		"another name":           {changed(func(l *Leaf) { l.DNS = []string{"localhost", "more"} }), 0, false},
		"another address":        {changed(func(l *Leaf) { l.IPs = []netip.Addr{netip.MustParseAddr("10.0.0.2")} }), 0, false},
		"another user":           {changed(func(l *Leaf) { l.Common = "other" }), 0, false},
		"other groups":           {changed(func(l *Leaf) { l.Groups = nil }), 0, false},
		"for clients as well":    {changed(func(l *Leaf) { l.Client = true }), 0, false},
		"before its beginning":   {leaf, -time.Hour, false},
		"at once, nothing asked": {leaf, 0, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			a := authority(t, t.TempDir(), day0)
			first := issue(t, a, leaf, day0)
			second := issue(t, a, c.leaf, day0.Add(c.later))
			if kept := first.Equal(second); kept != c.kept {
				t.Errorf("kept is %v, want %v", kept, c.kept)
			}
			if err := second.CheckSignatureFrom(a.cert); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAuthorityIsKeptAndReplacedInTime(t *testing.T) {
	dir := t.TempDir()
	leaf := Leaf{Name: "api", Server: true}
	first := authority(t, dir, day0)
	signed := issue(t, first, leaf, day0)
	if again := authority(t, dir, day0.Add(time.Hour)); !again.cert.Equal(first.cert) {
		t.Error("the authority was replaced without need")
	}
	end := day0.Add(authorityLife - leafLife)
	second := authority(t, dir, end)
	if second.cert.Equal(first.cert) {
		t.Error("the authority would end before what it signs")
	}
	if issue(t, second, leaf, end).Equal(signed) {
		t.Error("a certificate of the former authority was kept")
	}
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a := authority(t, dir, day0)
	issue(t, a, Leaf{Name: "api", Server: true}, day0)
	if _, _, err := Key(dir, "tokens"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 6 {
		t.Errorf("%d files, want 6: no temporary one may stay", len(entries))
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode().Perm())
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info.Mode().Perm(), err)
	}
}

func TestDamagedAuthorityIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	a := authority(t, dir, day0)
	if err := os.WriteFile(a.CertFile, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAuthority(dir, "ca", day0); err == nil {
		t.Error("a damaged authority was loaded or replaced, which would lock every client out")
	}
}

func TestKeyStays(t *testing.T) {
	dir := t.TempDir()
	private, public, err := Key(dir, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Key(dir, "tokens"); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(private)
	if err != nil || string(before) != string(after) {
		t.Errorf("the key changed: %v", err)
	}
	if _, err := os.Stat(public); err != nil {
		t.Error(err)
	}
}

func TestServerIsTrustedThroughTheAuthority(t *testing.T) {
	a := authority(t, t.TempDir(), time.Now())
	certificate, err := a.Server(Leaf{Name: "api", DNS: []string{"api.test"}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	go func() {
		_ = tls.Server(far, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate}).HandshakeContext(t.Context())
	}()
	if err := tls.Client(near, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Pool(), ServerName: "api.test"}).HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
}
