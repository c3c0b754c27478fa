package server

import (
	"crypto/tls"
	"fmt"
	"strings"
	"sync"

	"ebb.dev/ebb/internal/component/cluster/pki"
)

// hostCertificates makes a certificate, signed by the cluster's authority, for each public host that
// somebody asks for by TLS and that a route has.
type hostCertificates struct {
	authority *pki.Authority
	known     func(host string) bool

	mu   sync.Mutex // guards made
	made map[string]func(*tls.ClientHelloInfo) (*tls.Certificate, error)
}

// config is for a listener that speaks HTTP/2 and HTTP/1.1.
func (h *hostCertificates) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: h.certificate}
}

func (h *hostCertificates) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host := strings.TrimSuffix(strings.ToLower(hello.ServerName), ".")
	if !h.known(host) {
		return nil, fmt.Errorf("no route has the host %q", hello.ServerName)
	}
	renewed, err := h.source(host)
	if err != nil {
		return nil, err
	}
	return renewed(hello)
}

// source is the host's certificate, renewed as it ages.
func (h *hostCertificates) source(host string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if renewed, there := h.made[host]; there {
		return renewed, nil
	}
	renewed, err := h.authority.Server(pki.Leaf{Name: "host-" + host, DNS: []string{host}, Server: true})
	if err != nil {
		return nil, fmt.Errorf("making a certificate for %s: %w", host, err)
	}
	h.made[host] = renewed
	return renewed, nil
}
