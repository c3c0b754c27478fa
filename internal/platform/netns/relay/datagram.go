package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Flows are bounded and end when they have been quiet.
const (
	maxFlows    = 8192
	flowQuiet   = 60 * time.Second
	largestBody = 65535 - ipHeader - udpHeader
)

// flow is one pod socket's exchange with one far address.
type flow struct {
	tuple tuple
	far   net.Conn
	used  atomic.Int64 // unix nanoseconds
}

// datagram sends a pod's datagram on from the host.
func (r *Relay) datagram(p packet) {
	t := p.tuple()
	r.mu.Lock()
	f, full := r.flows[t], len(r.flows) >= maxFlows
	r.mu.Unlock()
	if f == nil {
		if full {
			return
		}
		far, err := r.dial("udp4", t.target) // connecting a UDP socket does not wait
		if err != nil {
			r.log.Debug("relaying a datagram", "to", t.target.String(), "error", err)
			return
		}
		f = &flow{tuple: t, far: far}
		f.used.Store(time.Now().UnixNano())
		r.mu.Lock()
		r.flows[t] = f
		r.mu.Unlock()
		r.running.Go(func() { r.answer(f) })
	}
	f.used.Store(time.Now().UnixNano())
	body := p.body()
	length := binary.BigEndian.Uint16(body[udpLength:])
	_, _ = f.far.Write(body[udpHeader:max(int(length), udpHeader)]) // an error is an earlier refusal
}

// answer sends the far side's datagrams back until the flow is quiet.
func (r *Relay) answer(f *flow) {
	defer func() {
		r.mu.Lock()
		delete(r.flows, f.tuple)
		r.mu.Unlock()
		_ = f.far.Close()
	}()
	buf := make([]byte, udpHeader+largestBody)
	for r.ctx.Err() == nil {
		_ = f.far.SetReadDeadline(time.Unix(0, f.used.Load()).Add(flowQuiet))
		n, err := f.far.Read(buf[udpHeader:])
		switch {
		case err == nil:
			f.used.Store(time.Now().UnixNano())
			body := buf[:udpHeader+n]
			clear(body[:udpHeader])
			binary.BigEndian.PutUint16(body[udpLength:], uint16(len(body)))
			r.send(build(tuple{f.tuple.target, f.tuple.source}, unix.IPPROTO_UDP, body, udpChecksum))
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, f.used.Load())) < flowQuiet:
			// used meanwhile
		case errors.Is(err, unix.ECONNREFUSED):
			// the far side may yet listen; the pod asks again or not
		default:
			return
		}
	}
}
