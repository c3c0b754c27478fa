package export_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"ebb.dev/ebb/internal/platform/telemetry/export"
)

func TestCollectorsAreFoundByNamesOfTheCluster(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		known := []string{"collector.observability.svc.cluster.local.", "near.knative-serving.svc.cluster.local."}
		if !slices.Contains(known, q.Question[0].Name) {
			answer.Rcode = dns.RcodeNameError
		} else if q.Question[0].Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(10, 96, 0, 7),
			}}
		}
		_ = w.WriteMsg(answer) // the client's loss
	})}
	go func() { _ = server.ActivateAndServe() }() // ends with Shutdown
	t.Cleanup(func() { _ = server.Shutdown() })
	app, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	nameserver := netip.MustParseAddrPort(l.Addr().String())
	_, port, _ := net.SplitHostPort(app.Addr().String()) // a listener's address has both

	cases := map[string]struct{ host, inside string }{
		"a Service with its namespace": {"collector.observability", "10.96.0.7:" + port},
		"with svc":                     {"collector.observability.svc", "10.96.0.7:" + port},
		"in full":                      {"collector.observability.svc.cluster.local", "10.96.0.7:" + port},
		"of Knative's namespace":       {"near", "10.96.0.7:" + port},
		"this machine":                 {"localhost", ""},
		"a literal address":            {"127.0.0.1", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			inside := ""
			d := export.Dialer{DNS: nameserver, Domain: "cluster.local", Namespace: "knative-serving"}
			d.Inside = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr != nameserver.String() {
					inside, addr = addr, app.Addr().String()
				}
				return (&net.Dialer{}).DialContext(ctx, network, addr)
			}
			conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(c.host, port))
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if diff := cmp.Diff(c.inside, inside); diff != "" {
				t.Errorf("dialled inside (-want +got):\n%s", diff)
			}
		})
	}
}
