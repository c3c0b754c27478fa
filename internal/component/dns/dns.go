// Package dns is the cluster's name server: Services, their endpoints and pods as the Kubernetes
// DNS specification names them, the domains routes have, and everything else from the host's own
// name servers.
//
// Answers about the cluster come straight from informers and are never cached. It listens in ebb's
// network namespace, where pods ask it, and asks others from the host's.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/informers"
)

// Network is where the server listens; *netns.Net is one.
type Network interface {
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, addr string) (net.PacketConn, error)
}

// Config says what to answer and where.
type Config struct {
	Net       Network
	Address   netip.AddrPort                  // of the cluster's DNS Service, port 53
	Informers informers.SharedInformerFactory // started by the caller after New

	Domain  string         // of the cluster, "cluster.local"
	Reverse []netip.Prefix // whose reverse names are ours: pod, Service and load-balancer ranges

	Gateway      netip.Addr // answers for RouteDomains
	RouteDomains []string   // "localhost", "127.0.0.1.sslip.io": every name below them leads to the gateway

	// RouteHost tells further names that lead to the gateway. Optional.
	RouteHost func(name string) bool

	// ResolvConf names the host's name servers; empty means /etc/resolv.conf. It is read again when
	// it changes.
	ResolvConf string
	// Dial connects to name servers; nil means from the process's own network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	Registerer prometheus.Registerer // may be nil
	Log        *slog.Logger
}

// Server answers queries.
type Server struct {
	cfg     Config
	log     *slog.Logger
	zone    *zone
	routes  routes
	forward *forwarder
	store   *informed
	queries *prometheus.CounterVec // by who answered and how
}

// New registers with the informers; nothing is answered before Run.
func New(c Config) (*Server, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	store, err := newInformed(c.Informers)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:   c,
		log:   c.Log,
		store: store,
		zone:  &zone{origin: dns.CanonicalName(c.Domain), reverse: c.Reverse, server: c.Address.Addr(), store: store},
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_dns_queries_total", Help: "Queries answered, by who knew the answer and its response code.",
		}, []string{"by", "rcode"}),
	}
	s.routes = newRoutes(c.RouteDomains, c.Gateway, c.RouteHost)
	s.forward = newForwarder(c)
	if c.Registerer != nil {
		if err := c.Registerer.Register(s.queries); err != nil {
			return nil, fmt.Errorf("registering DNS metrics: %w", err)
		}
	}
	return s, nil
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if !s.store.wait(ctx) {
		return context.Cause(ctx)
	}
	addr := s.cfg.Address.String()
	packets, err := s.cfg.Net.ListenPacket(ctx, "udp4", addr)
	if err != nil {
		return fmt.Errorf("listening for DNS at %s/udp: %w", addr, err)
	}
	streams, err := s.cfg.Net.Listen(ctx, "tcp4", addr)
	if err != nil {
		return errors.Join(fmt.Errorf("listening for DNS at %s/tcp: %w", addr, err), packets.Close())
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { s.serve(ctx, w, r) })
	servers := []*dns.Server{
		{PacketConn: packets, Handler: handler, UDPSize: maxUDP},
		{Listener: streams, Handler: handler, MaxTCPQueries: 1024, ReadTimeout: 5 * time.Second},
	}
	ended := make(chan error, len(servers))
	for _, server := range servers {
		go func() { ended <- server.ActivateAndServe() }()
	}
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = nil
	}
	// Closing the sockets is enough: an answer takes milliseconds and clients ask again.
	_ = packets.Close()
	_ = streams.Close()
	if err != nil {
		return fmt.Errorf("serving DNS: %w", err)
	}
	return nil
}

// maxUDP is the largest datagram taken and sent, whatever clients offer.
const maxUDP = 4096

// maxChain bounds how many aliases are followed.
const maxChain = 8

// answer is what a question comes down to.
type answer struct {
	by            string // cluster, route or forward
	rcode         int
	authoritative bool
	truncated     bool // not all there is
	records       []dns.RR
	authority     []dns.RR
	extra         []dns.RR
	alias         string // a name to go on with, after the last record
}

// serve answers one message.
func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) {
	reply := new(dns.Msg)
	a := answer{by: "none", rcode: dns.RcodeNotImplemented}
	if r.Opcode == dns.OpcodeQuery {
		a.rcode = dns.RcodeFormatError
		if len(r.Question) == 1 {
			a = s.resolve(ctx, r)
		}
	}
	reply.SetRcode(r, a.rcode)
	reply.Authoritative = a.authoritative
	reply.RecursionAvailable = true
	reply.Answer, reply.Ns, reply.Extra = a.records, a.authority, a.extra
	size := dns.MinMsgSize
	if opt := r.IsEdns0(); opt != nil {
		reply.SetEdns0(maxUDP, opt.Do())
		size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
	}
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
		size = dns.MaxMsgSize
	}
	reply.Compress = true
	reply.Truncate(size)
	reply.Truncated = reply.Truncated || a.truncated
	s.queries.WithLabelValues(a.by, dns.RcodeToString[a.rcode]).Inc()
	if err := w.WriteMsg(reply); err != nil {
		s.log.DebugContext(ctx, "answering a DNS query", "error", err)
	}
}

// resolve answers the question of r, following aliases from name to name.
func (s *Server) resolve(ctx context.Context, r *dns.Msg) answer {
	q := r.Question[0]
	var chain []dns.RR
	for range maxChain {
		a := s.lookUp(ctx, r, q)
		a.records = append(chain, a.records...)
		if a.alias == "" {
			return a
		}
		chain, q.Name = a.records, a.alias
	}
	return answer{by: "cluster", rcode: dns.RcodeServerFailure}
}

// lookUp asks whoever is responsible for the name.
func (s *Server) lookUp(ctx context.Context, r *dns.Msg, q dns.Question) answer {
	if q.Qclass == dns.ClassINET || q.Qclass == dns.ClassANY {
		if a, ok := s.zone.answer(q); ok {
			return a
		}
		if a, ok := s.routes.answer(q); ok {
			return a
		}
	}
	return s.forward.answer(ctx, r, q)
}

// below cuts origin off name and returns the labels left of it.
func below(name, origin string) ([]string, bool) {
	if name == origin {
		return nil, true
	}
	rest, ok := strings.CutSuffix(name, "."+origin)
	if !ok {
		return nil, false
	}
	return strings.Split(rest, "."), true
}
