package relay

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes and offsets in IPv4, TCP and UDP headers.
const (
	ipHeader, tcpHeader, udpHeader = 20, 20, 8

	ipFragment, ipProtocol, ipChecksum, ipSource, ipTarget = 6, 9, 10, 12, 16
	tcpSequence, tcpAck, tcpOffset, tcpFlags, tcpChecksum  = 4, 8, 12, 13, 16
	udpLength, udpChecksum                                 = 4, 6
)

// TCP flags.
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
	flagFIN = 0x01
)

// packet is a whole IPv4 packet of TCP or UDP, checked by parse.
type packet []byte

// tuple is who talks to whom.
type tuple struct{ source, target netip.AddrPort }

// parse checks that b is an unfragmented IPv4 packet with a whole TCP or UDP header.
func parse(b []byte) (packet, bool) {
	if len(b) < ipHeader || b[0]>>4 != 4 {
		return nil, false
	}
	head, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	fragmented := binary.BigEndian.Uint16(b[ipFragment:])&0x3fff != 0
	if head < ipHeader || total > len(b) || head > total || fragmented {
		return nil, false
	}
	p := packet(b[:total])
	switch p.protocol() {
	case unix.IPPROTO_TCP:
		return p, total >= head+tcpHeader && int(p.body()[tcpOffset]>>4)*4 <= total-head
	case unix.IPPROTO_UDP:
		length := total - head
		return p, length >= udpHeader && int(binary.BigEndian.Uint16(p.body()[udpLength:])) <= length
	}
	return nil, false
}

func (p packet) protocol() int { return int(p[ipProtocol]) }

// body is everything after the IP header.
func (p packet) body() []byte { return p[int(p[0]&0xf)*4:] }

func (p packet) tuple() tuple {
	body := p.body()
	at := func(offset, port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[offset:offset+4])), binary.BigEndian.Uint16(body[port:]))
	}
	return tuple{at(ipSource, 0), at(ipTarget, 2)}
}

// readdress gives a TCP packet other ends and corrects its checksums by the difference (RFC 1624).
func (p packet) readdress(t tuple) {
	body := p.body()
	ipSum, tcpSum := p[ipChecksum:ipChecksum+2], body[tcpChecksum:tcpChecksum+2]
	source, target := t.source.Addr().As4(), t.target.Addr().As4()
	replace(p[ipSource:ipSource+4], source[:], ipSum, tcpSum)
	replace(p[ipTarget:ipTarget+4], target[:], ipSum, tcpSum)
	var ports [4]byte
	binary.BigEndian.PutUint16(ports[:], t.source.Port())
	binary.BigEndian.PutUint16(ports[2:], t.target.Port())
	replace(body[0:4], ports[:], tcpSum)
}

// replace overwrites old with new and updates the checksums that cover it.
func replace(old, new []byte, sums ...[]byte) {
	for _, s := range sums {
		sum := uint32(^binary.BigEndian.Uint16(s))
		for i := 0; i < len(old); i += 2 {
			sum += uint32(^binary.BigEndian.Uint16(old[i:])) + uint32(binary.BigEndian.Uint16(new[i:]))
		}
		binary.BigEndian.PutUint16(s, ^fold(sum))
	}
	copy(old, new)
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func add(sum uint32, b []byte) uint32 {
	for len(b) > 1 {
		sum += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return uint32(fold(sum))
}

// build makes a packet with the given body, whose checksum field lies at checksum.
func build(t tuple, protocol byte, body []byte, checksum int) packet {
	p := make(packet, ipHeader+len(body))
	p[0], p[8], p[ipProtocol] = 4<<4|ipHeader/4, 64, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	source, target := t.source.Addr().As4(), t.target.Addr().As4()
	copy(p[ipSource:], source[:])
	copy(p[ipTarget:], target[:])
	binary.BigEndian.PutUint16(p[ipChecksum:], ^fold(add(0, p[:ipHeader])))
	copy(p[ipHeader:], body)
	body = p[ipHeader:]
	binary.BigEndian.PutUint16(body, t.source.Port())
	binary.BigEndian.PutUint16(body[2:], t.target.Port())
	sum := add(uint32(protocol)+uint32(len(body)), p[ipSource:ipHeader])
	sum = add(sum, body)
	value := ^fold(sum)
	if value == 0 {
		value = 0xffff // in UDP, zero means there is none
	}
	binary.BigEndian.PutUint16(body[checksum:], value)
	return p
}

// refusal answers a TCP packet with a reset (RFC 9293, 3.10.7.1).
func (p packet) refusal() packet {
	body, t := p.body(), p.tuple()
	reply := make([]byte, tcpHeader)
	reply[tcpOffset] = tcpHeader / 4 << 4
	if body[tcpFlags]&flagACK != 0 {
		reply[tcpFlags] = flagRST
		copy(reply[tcpSequence:], body[tcpAck:tcpAck+4])
	} else {
		reply[tcpFlags] = flagRST | flagACK
		length := uint32(len(body) - int(body[tcpOffset]>>4)*4)
		for _, flag := range []byte{flagSYN, flagFIN} {
			if body[tcpFlags]&flag != 0 {
				length++
			}
		}
		binary.BigEndian.PutUint32(reply[tcpAck:], binary.BigEndian.Uint32(body[tcpSequence:])+length)
	}
	return build(tuple{t.target, t.source}, unix.IPPROTO_TCP, reply, tcpChecksum)
}
