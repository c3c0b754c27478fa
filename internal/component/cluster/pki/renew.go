package pki

import (
	"crypto/tls"
	"sync"
	"time"
)

// recheck is how long a served certificate is used without looking at its end again.
const recheck = time.Hour

// Server returns what tls.Config.GetCertificate wants: the leaf's certificate, signed anew when it
// nears its end, so that a server that runs for years needs no restart.
func (a *Authority) Server(l Leaf) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	s := &server{authority: a, leaf: l}
	if _, err := s.certificate(nil); err != nil {
		return nil, err
	}
	return s.certificate, nil
}

type server struct {
	authority *Authority
	leaf      Leaf

	mu      sync.Mutex // guards the rest
	current *tls.Certificate
	checked time.Time
}

func (s *server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.current != nil && now.Sub(s.checked) < recheck {
		return s.current, nil
	}
	p, err := s.authority.Issue(s.leaf, now)
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		return nil, err
	}
	s.current, s.checked = &cert, now
	return s.current, nil
}
