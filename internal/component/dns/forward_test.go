package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"
)

// errNoTCP is what dialling a name server without TCP gives here.
var errNoTCP = errors.New("no TCP here")

// newTestForwarder asks one server on loopback, by UDP only.
func newTestForwarder(t *testing.T, up dns.Handler) *forwarder {
	t.Helper()
	var lc net.ListenConfig
	packets, err := lc.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: up}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = packets.Close() })
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 10.96.0.10\nnameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return newForwarder(Config{
		Address: netip.MustParseAddrPort("10.96.0.10:53"), ResolvConf: file, Log: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if network != "udp" {
				return nil, errNoTCP
			}
			if addr != "192.0.2.53:53" {
				t.Errorf("asked %s, want only the server that does not lead back", addr)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, packets.LocalAddr().String())
		},
	})
}

func TestForwardPassesOnWhatServersWithoutTCPSay(t *testing.T) {
	f := newTestForwarder(t, &upstream{})
	q := query("large.example.", dns.TypeTXT)
	a := f.answer(t.Context(), q, q.Question[0])
	if a.rcode != dns.RcodeSuccess || !a.truncated || len(a.records) == 0 {
		t.Errorf("got %s with %d records, truncated %v, want what fitted", dns.RcodeToString[a.rcode], len(a.records), a.truncated)
	}
}

func TestForwardRefusesMoreThanItsShare(t *testing.T) {
	f := newTestForwarder(t, &upstream{})
	if !f.slots.TryAcquire(maxForwards) {
		t.Fatal("slots are taken at the start")
	}
	q := query("far.example.", dns.TypeA)
	if a := f.answer(t.Context(), q, q.Question[0]); a.rcode != dns.RcodeServerFailure {
		t.Errorf("got %s, want SERVFAIL", dns.RcodeToString[a.rcode])
	}
	f.slots.Release(maxForwards)
	if a := f.answer(t.Context(), q, q.Question[0]); a.rcode != dns.RcodeSuccess || len(a.records) != 1 {
		t.Errorf("got %s with %d records, want the answer", dns.RcodeToString[a.rcode], len(a.records))
	}
}
