package dns

import (
	"fmt"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The cache spares the host's name servers the repeated questions of many pods; it is no resolver.
const (
	maxCached = 4096
	maxKeep   = 30 * time.Second
)

// key is what makes two questions the same.
type key struct {
	name           string
	qtype, qclass  uint16
	secure, verify bool // DO and CD
}

func newKey(r *dns.Msg, q dns.Question) key {
	k := key{name: dns.CanonicalName(q.Name), qtype: q.Qtype, qclass: q.Qclass, verify: r.CheckingDisabled}
	if opt := r.IsEdns0(); opt != nil {
		k.secure = opt.Do()
	}
	return k
}

// String tells keys apart.
func (k key) String() string { return fmt.Sprint(k.name, k.qtype, k.qclass, k.secure, k.verify) }

type cached struct {
	message *dns.Msg
	stored  time.Time
	until   time.Time
}

// replies is a bounded map of replies.
type replies struct {
	mu  sync.Mutex // guards all
	all map[key]cached
}

func newReplies() *replies { return &replies{all: map[key]cached{}} }

// get returns a copy of a reply that is still good, its times counted down.
func (c *replies) get(k key, now time.Time) *dns.Msg {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.all[k]
	if !ok {
		return nil
	}
	if !now.Before(e.until) {
		delete(c.all, k)
		return nil
	}
	m := e.message.Copy()
	age := uint32(now.Sub(e.stored) / time.Second)
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(h.Ttl, age)
			}
		}
	}
	return m
}

// put remembers a reply as long as it allows. When full, one of a few that end soonest goes.
func (c *replies) put(k key, m *dns.Msg, now time.Time) {
	keep := lifetime(m)
	if keep <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.all[k]; !known && len(c.all) >= maxCached {
		c.evict()
	}
	c.all[k] = cached{message: m.Copy(), stored: now, until: now.Add(keep)}
}

// evict removes an entry. The lock is held.
func (c *replies) evict() {
	var soonest key
	var when time.Time
	seen := 0
	for k, e := range c.all {
		if seen == 0 || e.until.Before(when) {
			soonest, when = k, e.until
		}
		if seen++; seen == 16 {
			break
		}
	}
	delete(c.all, soonest)
}

// lifetime is how long a reply may be kept: its shortest record, or for "there is none" what the
// SOA says (RFC 2308). Anything else is not kept.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	shortest := uint32(maxKeep / time.Second)
	if len(m.Answer) == 0 || m.Rcode == dns.RcodeNameError {
		soa := false
		for _, rr := range m.Ns {
			if s, ok := rr.(*dns.SOA); ok {
				soa, shortest = true, min(shortest, s.Hdr.Ttl, s.Minttl)
			}
		}
		if !soa {
			return 0
		}
	}
	for _, rr := range m.Answer {
		shortest = min(shortest, rr.Header().Ttl)
	}
	return time.Duration(shortest) * time.Second
}
