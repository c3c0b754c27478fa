package gateway

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Header fields with a meaning of their own here.
const (
	headerTag          = "Knative-Serving-Tag"
	headerDefaultRoute = "Knative-Serving-Default-Route"
	headerProbe        = "K-Network-Probe"
	headerHash         = "K-Network-Hash"
	headerForwardedFor = "X-Forwarded-For"
	headerForwardProto = "X-Forwarded-Proto"
	headerForwardHost  = "X-Forwarded-Host"
	headerForwarded    = "Forwarded"
	headerRequestID    = "X-Request-Id"
	internalPrefix     = "Knative-Serving-"
)

// setHeaders makes the client's header fields those the application gets. The request's own map is
// changed: nobody reads it after this, and a copy would cost as much as the rest.
func (c *call) setHeaders() {
	h := c.r.Header
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				delete(h, textproto.CanonicalMIMEHeaderKey(name))
			}
		}
	}
	c.body.expect = httpguts.HeaderValuesContainsToken(h["Expect"], "100-continue")
	trailers := httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
	for name := range h {
		if concernsConnection(name) || internal(name) {
			delete(h, name)
		}
	}
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if c.defaultRoute {
		h[headerDefaultRoute] = []string{"true"}
	}
	c.setForwarded(h)
}

// concernsConnection tells hop-by-hop fields and those that frame a message: they are written anew.
func concernsConnection(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Expect", "Http2-Settings", "Keep-Alive", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// internal tells fields between parts of the platform, which no client may set.
func internal(name string) bool {
	if len(name) < 2 || name[0] != 'K' {
		return false
	}
	switch name {
	case "K-Original-Host", "K-Passthrough-Lb", "K-Proxy-Request", headerHash, headerProbe:
		return true
	}
	return strings.HasPrefix(name, internalPrefix)
}

// setForwarded tells the application who asked for what, in both customary forms.
func (c *call) setForwarded(h http.Header) {
	peer := peerAddress(c.r.RemoteAddr)
	believed := c.g.trusted(peer)
	values := make([]string, 5) // one allocation for the five fields
	set := func(i int, name, value string) {
		values[i] = value
		h[name] = values[i : i+1 : i+1]
	}
	clients := peer
	if prior := h[headerForwardedFor]; len(prior) > 0 {
		clients = strings.Join(prior, ", ") + ", " + peer
	}
	set(0, headerForwardedFor, clients)
	proto, host := "http", c.r.Host
	if c.r.TLS != nil {
		proto = "https"
	}
	if said := h.Get(headerForwardProto); believed && said != "" {
		proto = said
	}
	if said := h.Get(headerForwardHost); believed && said != "" {
		host = said
	}
	set(1, headerForwardProto, proto)
	set(2, headerForwardHost, host)
	if h[headerForwarded] == nil {
		set(3, headerForwarded, forwarded(clients, host, proto))
	}
	if h[headerRequestID] == nil {
		set(4, headerRequestID, requestID())
	}
}

// peerAddress takes the port off.
func peerAddress(remote string) string {
	if i := strings.LastIndexByte(remote, ':'); i >= 0 {
		remote = remote[:i]
	}
	return strings.Trim(remote, "[]")
}

// trusted reports whether the peer is a proxy whose word is taken.
func (g *Gateway) trusted(peer string) bool {
	if len(g.config.Trusted) == 0 {
		return false
	}
	addr, err := netip.ParseAddr(peer)
	if err != nil {
		return false
	}
	for _, p := range g.config.Trusted {
		if p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// forwarded writes RFC 7239's field; host and proto belong to the first client.
func forwarded(clients, host, proto string) string {
	var b strings.Builder
	b.Grow(len("for=;host=\"\";proto=") + len(clients) + len(host) + len(proto) + 8)
	for i, client := range splitClients(clients) {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("for=")
		if strings.IndexByte(client, ':') >= 0 {
			b.WriteString(`"[` + strings.Trim(client, "[]") + `]"`)
		} else {
			b.WriteString(client)
		}
		if i == 0 {
			b.WriteString(";host=")
			if strings.IndexByte(host, ':') >= 0 {
				b.WriteString(`"` + host + `"`)
			} else {
				b.WriteString(host)
			}
			b.WriteString(";proto=")
			b.WriteString(proto)
		}
	}
	return b.String()
}

// splitClients yields the addresses of a list; nearly always it is one.
func splitClients(clients string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for i := 0; ; i++ {
			one, rest, more := strings.Cut(clients, ",")
			if !yield(i, textproto.TrimString(one)) || !more {
				return
			}
			clients = rest
		}
	}
}

// requestID is a random UUID; it names a request and guards nothing.
func requestID() string {
	const digits = "0123456789abcdef"
	var id [36]byte
	bits, left := rand.Uint64(), 16 // a name, no secret
	for i := range id {
		switch i {
		case 8, 13, 18, 23:
			id[i] = '-'
			continue
		}
		if left == 0 {
			bits, left = rand.Uint64(), 16
		}
		id[i] = digits[bits&15]
		bits >>= 4
		left--
	}
	id[14] = '4'
	id[19] = digits[8|(id[19]&3)]
	return string(id[:])
}

// upgradeAsked returns the protocol an HTTP/1.1 request asks to switch to.
func upgradeAsked(r *http.Request) string {
	if r.ProtoMajor != 1 || r.ProtoMinor != 1 {
		return ""
	}
	if !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") {
		return ""
	}
	to := r.Header.Get("Upgrade")
	if !httpguts.ValidHeaderFieldValue(to) || strings.EqualFold(to, "h2c") {
		return ""
	}
	return to
}
