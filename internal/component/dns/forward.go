package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

// Asking other name servers is bounded in time and number.
const (
	attemptTime  = 2 * time.Second
	forwardTime  = 6 * time.Second
	maxForwards  = 1024
	reloadPeriod = 5 * time.Second
)

// errNoServer means the host names no name server that could be asked.
var errNoServer = errors.New("no name server to ask")

// errBusy means as many questions as allowed wait for their answers.
var errBusy = errors.New("too many questions under way")

// forwarder asks the host's name servers and remembers what they say for a while.
type forwarder struct {
	file   string
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	log    *slog.Logger
	refuse func(netip.Addr) bool // servers that would lead back to us

	cache  *replies
	flight singleflight.Group
	slots  *semaphore.Weighted
	good   atomic.Uint32 // which server answered last

	mu      sync.Mutex // guards the rest
	servers []string
	read    time.Time // when servers was checked
	changed time.Time // the file's time then
}

func newForwarder(c Config) *forwarder {
	return &forwarder{
		file: c.ResolvConf, dial: c.Dial, log: c.Log,
		cache: newReplies(), slots: semaphore.NewWeighted(maxForwards),
		refuse: func(a netip.Addr) bool {
			if a == c.Address.Addr() {
				return true
			}
			for _, p := range c.Reverse {
				if p.Contains(a) {
					return true
				}
			}
			return false
		},
	}
}

// answer asks for q with the flags of r.
func (f *forwarder) answer(ctx context.Context, r *dns.Msg, q dns.Question) answer {
	key := newKey(r, q)
	if m := f.cache.get(key, time.Now()); m != nil {
		return fromMessage(m)
	}
	got, err, _ := f.flight.Do(key.String(), func() (any, error) {
		// Detached: others may wait for the answer after the first asker has gone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forwardTime)
		defer cancel()
		m, err := f.ask(ctx, r, q)
		if err == nil {
			f.cache.put(key, m, time.Now())
		}
		return m, err
	})
	m, ok := got.(*dns.Msg)
	if err != nil || !ok {
		f.log.DebugContext(ctx, "forwarding a DNS query", "name", q.Name, "error", err)
		return answer{by: "forward", rcode: dns.RcodeServerFailure}
	}
	return fromMessage(m.Copy())
}

// fromMessage keeps of a reply what is passed on.
func fromMessage(m *dns.Msg) answer {
	a := answer{by: "forward", rcode: m.Rcode, truncated: m.Truncated, records: m.Answer, authority: m.Ns}
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			a.extra = append(a.extra, rr)
		}
	}
	return a
}

// ask tries the servers in turn, beginning with the one that answered last, twice at most.
func (f *forwarder) ask(ctx context.Context, r *dns.Msg, q dns.Question) (*dns.Msg, error) {
	if !f.slots.TryAcquire(1) {
		return nil, errBusy // rather than a queue of questions nobody waits for any more
	}
	defer f.slots.Release(1)
	servers := f.list()
	if len(servers) == 0 {
		return nil, errNoServer
	}
	query := &dns.Msg{Question: []dns.Question{q}}
	query.Id = dns.Id()
	query.RecursionDesired = true
	query.CheckingDisabled = r.CheckingDisabled
	opt := r.IsEdns0()
	query.SetEdns0(maxUDP, opt != nil && opt.Do())
	start := f.good.Load()
	err := errNoServer
	var last *dns.Msg
	for i := range uint32(2 * len(servers)) {
		n := (start + i) % uint32(len(servers))
		m, attempt := f.exchange(ctx, servers[n], query)
		if attempt == nil && m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused {
			f.good.Store(n)
			return m, nil
		}
		if attempt == nil {
			last = m
		}
		err = attempt
		if ctx.Err() != nil {
			break
		}
	}
	if last != nil {
		return last, nil
	}
	return nil, err
}

// exchange asks one server, by TCP if the answer does not fit a datagram. A server without TCP still
// said more than nothing.
func (f *forwarder) exchange(ctx context.Context, server string, query *dns.Msg) (*dns.Msg, error) {
	short, err := f.exchangeBy(ctx, "udp", server, query)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	if !short.Truncated {
		return short, nil
	}
	if whole, err := f.exchangeBy(ctx, "tcp", server, query); err == nil {
		return whole, nil
	}
	return short, nil
}

func (f *forwarder) exchangeBy(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	raw, err := f.dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	client := &dns.Client{Net: network, UDPSize: maxUDP, Timeout: attemptTime}
	m, _, err := client.ExchangeWithConnContext(ctx, query.Copy(), &dns.Conn{Conn: raw, UDPSize: maxUDP})
	if err != nil {
		return nil, err
	}
	if len(m.Question) != 1 || dns.CanonicalName(m.Question[0].Name) != dns.CanonicalName(query.Question[0].Name) {
		return nil, errors.New("the answer is to another question")
	}
	return m, nil
}

// list is the servers to ask; the file is looked at again every few seconds, if anybody asks.
func (f *forwarder) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.read) < reloadPeriod {
		return f.servers
	}
	f.read = now
	info, err := os.Stat(f.file)
	if err == nil && info.ModTime().Equal(f.changed) {
		return f.servers
	}
	conf, err := dns.ClientConfigFromFile(f.file)
	if err != nil {
		f.log.Warn("reading the host's name servers", "file", f.file, "error", err)
		return f.servers
	}
	f.servers = nil
	for _, s := range conf.Servers {
		addr, err := netip.ParseAddr(s)
		if err != nil || f.refuse(addr) {
			f.log.Warn("leaving out a name server", "server", s)
			continue
		}
		f.servers = append(f.servers, net.JoinHostPort(s, portOr53(conf.Port)))
	}
	if info != nil {
		f.changed = info.ModTime()
	}
	return f.servers
}

func portOr53(p string) string {
	if _, err := strconv.ParseUint(p, 10, 16); err != nil {
		return "53"
	}
	return p
}
