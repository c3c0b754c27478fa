package dns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

// upstream is a name server on the remote machine; asked counts the queries it got.
type upstream struct{ asked atomic.Int64 }

func (u *upstream) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	u.asked.Add(1)
	m := new(dns.Msg)
	m.SetReply(r)
	q := r.Question[0]
	h := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 20}
	switch {
	case strings.HasPrefix(q.Name, "large."):
		for i := range 100 {
			m.Answer = append(m.Answer, &dns.TXT{Hdr: h, Txt: []string{fmt.Sprintf("%03d %s", i, strings.Repeat("x", 100))}})
		}
	case strings.HasPrefix(q.Name, "none."):
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{(&zone{origin: "example."}).soa("example.")}
	case q.Qtype == dns.TypeA:
		m.Answer = []dns.RR{address(h, netip.MustParseAddr("203.0.113.80"))}
	}
	if _, udp := w.RemoteAddr().(interface{ AddrPort() netip.AddrPort }); udp && w.LocalAddr().Network() == "udp" {
		m.Truncate(1232)
	}
	_ = w.WriteMsg(m)
}

// start runs the server in a world with that upstream and returns its address and network.
func start(t *testing.T, i int, resolvConf string, objects ...*corev1.Service) (*netns.Net, netip.AddrPort, *upstream) {
	t.Helper()
	w := netnstest.New(t)
	c := w.Config(i)
	n := w.Open(t, c)
	up := &upstream{}
	packets, err := w.Remote.ListenPacket(t.Context(), "udp", w.RemoteAddr.String()+":53")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := w.Remote.Listen(t.Context(), "tcp", w.RemoteAddr.String()+":53")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: up}, {Listener: streams, Handler: up}} {
		go func() { _ = s.ActivateAndServe() }()
	}
	t.Cleanup(func() { _, _ = packets.Close(), streams.Close() })
	at := netip.MustParseAddrPort(fmt.Sprintf("10.%d.64.10:53", i))
	file := filepath.Join(t.TempDir(), "resolv.conf")
	resolvConf = strings.NewReplacer("SELF", at.Addr().String(), "REMOTE", w.RemoteAddr.String()).Replace(resolvConf)
	if err := os.WriteFile(file, []byte(resolvConf), 0o600); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	for _, s := range objects {
		if err := client.Tracker().Add(s); err != nil {
			t.Fatal(err)
		}
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	s, err := New(Config{
		Net: n, Address: at, Informers: factory, Domain: "cluster.local",
		Reverse: []netip.Prefix{c.PodCIDR, c.ServiceCIDR}, Gateway: c.NodeIP, RouteDomains: []string{"localhost"},
		ResolvConf: file, Dial: w.Host.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	factory.Start(ctx.Done())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	return n, at, up
}

// ask sends a query until the server listens.
func ask(t *testing.T, n *netns.Net, network string, at netip.AddrPort, q *dns.Msg) *dns.Msg {
	t.Helper()
	deadline := time.Now().Add(8 * time.Second)
	for {
		c, err := n.DialContext(t.Context(), network, at.String())
		if err == nil {
			client := &dns.Client{Net: network, Timeout: 7 * time.Second}
			var m *dns.Msg
			m, _, err = client.ExchangeWithConnContext(t.Context(), q, &dns.Conn{Conn: c})
			if m != nil {
				m.Compress = true // as it was sent, for its length
			}
			_ = c.Close()
			if err == nil {
				return m
			}
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func query(name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	return q
}

func TestServerAnswersClusterAndForwardsTheRest(t *testing.T) {
	svc := &corev1.Service{ObjectMeta: named("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.51.64.7"}}
	out := &corev1.Service{ObjectMeta: named("outside"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "far.example"}}
	n, at, up := start(t, 51, "nameserver SELF\nnameserver REMOTE\n", svc, out)
	for what, tt := range map[string]struct {
		name string
		want []string
	}{
		"Service":          {"web.default.svc.cluster.local.", []string{"A 10.51.64.7"}},
		"route":            {"hello.default.localhost.", []string{"A 10.51.255.1"}},
		"name outside":     {"far.example.", []string{"A 203.0.113.80"}},
		"alias to outside": {"outside.default.svc.cluster.local.", []string{"CNAME far.example.", "A 203.0.113.80"}},
		"missing outside":  {"none.example.", []string{"NXDOMAIN"}},
		"missing reverse":  {"1.64.51.10.in-addr.arpa.", []string{"NXDOMAIN"}},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, n, network, at, query(tt.name, dns.TypeA))
			if diff := cmp.Diff(tt.want, spoken(answer{rcode: m.Rcode, records: m.Answer})); diff != "" {
				t.Errorf("%s by %s (-want +got):\n%s", what, network, diff)
			}
		}
	}
	if got := up.asked.Load(); got != 2 {
		t.Errorf("upstream was asked %d times, want once for each name", got)
	}
}

func TestServerTruncatesWhatDoesNotFit(t *testing.T) {
	n, at, _ := start(t, 52, "nameserver REMOTE\n")
	m := ask(t, n, "udp", at, query("large.example.", dns.TypeTXT))
	if !m.Truncated || m.Len() > dns.MinMsgSize {
		t.Errorf("truncated %v with %d bytes, want truncated to %d", m.Truncated, m.Len(), dns.MinMsgSize)
	}
	q := query("large.example.", dns.TypeTXT)
	q.SetEdns0(2048, false)
	if m := ask(t, n, "udp", at, q); !m.Truncated || m.Len() > 2048 || m.Len() < 1024 || m.IsEdns0() == nil {
		t.Errorf("with EDNS: truncated %v with %d bytes", m.Truncated, m.Len())
	}
	if m := ask(t, n, "tcp", at, query("large.example.", dns.TypeTXT)); m.Truncated || len(m.Answer) != 100 {
		t.Errorf("by TCP: truncated %v with %d records, want all 100", m.Truncated, len(m.Answer))
	}
}

func TestServerFailsWithoutAnyoneToAsk(t *testing.T) {
	n, at, _ := start(t, 53, "nameserver SELF\n")
	if m := ask(t, n, "udp", at, query("far.example.", dns.TypeA)); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %s, want SERVFAIL and no loop", dns.RcodeToString[m.Rcode])
	}
}

func TestRepliesAreKeptAsLongAsTheyAllow(t *testing.T) {
	now := time.Now()
	record := func(ttl uint32) *dns.Msg {
		m := new(dns.Msg)
		m.Answer = []dns.RR{address(dns.RR_Header{Name: "a.", Class: dns.ClassINET, Ttl: ttl}, netip.MustParseAddr("192.0.2.1"))}
		return m
	}
	failed := record(20)
	failed.Rcode = dns.RcodeServerFailure
	for what, tt := range map[string]struct {
		message *dns.Msg
		after   time.Duration
		want    int // seconds left; -1: not kept
	}{
		"fresh":               {record(20), 0, 20},
		"counted down":        {record(20), 5 * time.Second, 15},
		"over":                {record(20), 20 * time.Second, -1},
		"long is cut":         {record(3600), 29 * time.Second, 3571},
		"long is cut at last": {record(3600), 30 * time.Second, -1},
		"failure":             {failed, 0, -1},
		"not to be kept":      {record(0), 0, -1},
	} {
		t.Run(what, func(t *testing.T) {
			c := newReplies()
			c.put(key{name: "a."}, tt.message, now)
			got := -1
			if m := c.get(key{name: "a."}, now.Add(tt.after)); m != nil {
				got = int(m.Answer[0].Header().Ttl)
			}
			if got != tt.want {
				t.Errorf("got %d s left, want %d", got, tt.want)
			}
		})
	}
	c := newReplies()
	for i := range 2 * maxCached {
		c.put(key{name: fmt.Sprint(i)}, record(20), now)
	}
	if len(c.all) > maxCached {
		t.Errorf("cache holds %d replies, want at most %d", len(c.all), maxCached)
	}
}
