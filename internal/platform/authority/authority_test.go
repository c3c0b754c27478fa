package authority_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"ebb.dev/ebb/internal/platform/authority"
)

const day = 24 * time.Hour

var day0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func made(t *testing.T, now time.Time) *authority.Authority {
	t.Helper()
	a, err := authority.New("test", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func signed(t *testing.T, a *authority.Authority, hosts ...string) authority.Pair {
	t.Helper()
	p, err := a.Sign(hosts, day0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhoTrustsTheAuthorityTrustsWhatItSigned(t *testing.T) {
	a := made(t, day0)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(a.PEM()) {
		t.Fatal("the authority's certificate is not PEM")
	}
	pair := signed(t, a, "*.shop.localhost", "hello.shop")
	c, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"any.shop.localhost": true, "hello.shop": true, "shop.localhost": false, "a.b.shop.localhost": false, "other.example": false,
	} {
		_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: day0.Add(day)})
		if (err == nil) != want {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestJudge(t *testing.T) {
	a, hosts := made(t, day0), []string{"a.example", "b.example"}
	pair := signed(t, a, hosts...)
	other := signed(t, a, hosts...)
	tests := map[string]struct {
		by    *authority.Authority
		pair  authority.Pair
		hosts []string
		now   time.Time
		good  bool
	}{
		"as it was signed":            {a, pair, hosts, day0, true},
		"a week old":                  {a, pair, hosts, day0.Add(7 * day), true},
		"days before its end":         {a, pair, hosts, day0.Add(10 * day), false},
		"long after its end":          {a, pair, hosts, day0.Add(100 * day), false},
		"of a clock that was put on":  {a, pair, hosts, day0.Add(-day), false},
		"for fewer hosts":             {a, pair, hosts[:1], day0, false},
		"by another authority":        {made(t, day0), pair, hosts, day0, false},
		"with the key of another one": {a, authority.Pair{Certificate: pair.Certificate, Key: other.Key}, hosts, day0, false},
		"nothing":                     {a, authority.Pair{}, hosts, day0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if j := tt.by.Judge(tt.pair, tt.hosts, tt.now); j.Good != tt.good {
				t.Errorf("judged %+v", j)
			}
		})
	}
	j := a.Judge(pair, hosts, day0)
	if margin := j.Ends.Sub(j.Renew); margin < 4*day || !j.Renew.After(day0.Add(7*day)) {
		t.Errorf("renewed %s before its end at %s", margin, j.Ends)
	}
}

func TestLoad(t *testing.T) {
	a := made(t, day0)
	leaf := signed(t, a, "a.example")
	if again, err := authority.Load(a.Pair(), day0.Add(365*day)); err != nil || string(again.PEM()) != string(a.PEM()) {
		t.Errorf("loading what was made: %v", err)
	}
	if _, err := authority.Load(a.Pair(), day0.Add(3650*day)); !errors.Is(err, authority.ErrOld) {
		t.Errorf("loading one that ends before what it would sign: %v", err)
	}
	if _, err := authority.Load(leaf, day0); err == nil || errors.Is(err, authority.ErrOld) {
		t.Errorf("a leaf is taken for an authority: %v", err)
	}
	if _, err := authority.Load(authority.Pair{Certificate: a.PEM(), Key: leaf.Key}, day0); err == nil {
		t.Error("an authority without its key is taken")
	}
	block, _ := pem.Decode(a.PEM())
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA || !cert.MaxPathLenZero {
		t.Errorf("an authority under which there could be others: %v", err)
	}
}
