package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	clientgoinformers "k8s.io/client-go/informers"
	aggregatorapiserver "k8s.io/kube-aggregator/pkg/apiserver"
)

// localSuffix marks addresses that lead to handlers of this process. It can be no real host name.
const localSuffix = ".local-service.invalid"

// locals serves every Local over connections that never leave the process. They speak TLS because
// the API server speaks nothing else to webhooks and aggregated APIs.
type locals struct {
	all    map[string]Local // by server name
	pipe   *pipeListener
	server *http.Server
}

func (l Local) serverName() string { return l.Name + "." + l.Namespace + ".svc" }

func serveLocals(all []Local, cert func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*locals, error) {
	s := &locals{all: map[string]Local{}, pipe: newPipeListener()}
	for _, l := range all {
		if l.Handler == nil || l.Name == "" || l.Namespace == "" {
			return nil, fmt.Errorf("serving local service %s/%s: name, namespace and handler are needed", l.Namespace, l.Name)
		}
		s.all[l.serverName()] = l
	}
	if len(all) == 0 {
		return s, nil
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert}}
	go func() { _ = s.server.ServeTLS(s.pipe, "", "") }() // ends with ErrServerClosed when closed
	return s, nil
}

// ServeHTTP hands the request to the service named in the TLS greeting.
func (s *locals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS != nil {
		if l, ok := s.all[r.TLS.ServerName]; ok {
			l.Handler.ServeHTTP(w, r)
			return
		}
	}
	http.Error(w, "no such local service", http.StatusNotFound)
}

func (s *locals) close() error {
	if s.server == nil {
		return nil
	}
	return s.server.Close()
}

// resolver answers for local services first and looks for all others at their ClusterIP.
func (s *locals) resolver(informers clientgoinformers.SharedInformerFactory, loopback string) aggregatorapiserver.ServiceResolver {
	r := aggregatorapiserver.NewClusterIPServiceResolver(informers.Core().V1().Services().Lister())
	if u, err := url.Parse(loopback); err == nil {
		r = aggregatorapiserver.NewLoopbackServiceResolver(r, u)
	}
	return localResolver{s, r}
}

type localResolver struct {
	locals *locals
	next   aggregatorapiserver.ServiceResolver
}

func (r localResolver) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	l, ok := r.locals.all[Local{Namespace: namespace, Name: name}.serverName()]
	if !ok {
		return r.next.ResolveEndpoint(namespace, name, port)
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(l.Name+"."+l.Namespace+localSuffix, "443")}, nil
}

// dial reaches local services in process and everything else as the configuration says.
func (c *Cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, err := net.SplitHostPort(address); err == nil && strings.HasSuffix(host, localSuffix) {
		return c.locals.pipe.dial(ctx)
	}
	if c.cfg.Dial != nil {
		return c.cfg.Dial(ctx, network, address)
	}
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return d.DialContext(ctx, network, address)
}

// pipeListener accepts the far ends of connections made by dial.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

var errPipeClosed = errors.New("local services are closed")

func (p *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, errPipeClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	close(p.closed)
	return nil
}

func (p *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "local services" }
