package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
)

// stride is how many addresses are handed out per write of the pointer's file.
const stride = 64

// pool hands out the addresses of a range in a circle, so that one comes back as late as possible:
// what still knows a dead pod by its address must not meet another pod there. The place in the
// circle survives restarts and reboots.
type pool struct {
	file  string
	first uint32 // of the range, as a number
	size  uint32

	mu     sync.Mutex // guards the rest
	used   []uint64   // bitmap by offset
	cursor uint32     // offset to try next
	noted  uint32     // offsets below it in this round may have been handed out, says the file
}

// openPool reads the place from file and starts after everything that may have been handed out.
func openPool(p netip.Prefix, file string) (*pool, error) {
	if !p.Addr().Is4() || p.Bits() > 30 || p.Bits() < 8 {
		return nil, fmt.Errorf("opening pod range %s: want IPv4 between /8 and /30", p)
	}
	base := p.Masked().Addr().As4()
	a := &pool{file: file, first: binary.BigEndian.Uint32(base[:]), size: 1 << (32 - p.Bits())}
	a.used = make([]uint64, (a.size+63)/64)
	a.set(0, true)
	a.set(a.size-1, true)
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading place in pod range: %w", err)
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 32); err == nil {
		a.cursor = uint32(n) % a.size
	}
	a.noted = a.cursor
	return a, nil
}

func (p *pool) set(offset uint32, used bool) {
	if used {
		p.used[offset/64] |= 1 << (offset % 64)
	} else {
		p.used[offset/64] &^= 1 << (offset % 64)
	}
}

func (p *pool) isUsed(offset uint32) bool { return p.used[offset/64]&(1<<(offset%64)) != 0 }

// next takes the first free address at or after the cursor.
func (p *pool) next() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range p.size {
		offset := p.cursor
		p.cursor = (p.cursor + 1) % p.size
		if err := p.note(offset); err != nil {
			return netip.Addr{}, err
		}
		if !p.isUsed(offset) {
			p.set(offset, true)
			return p.addr(offset), nil
		}
	}
	return netip.Addr{}, ErrExhausted
}

// note writes the place down ahead of use, once per stride. The lock is held.
func (p *pool) note(offset uint32) error {
	if offset != p.noted {
		return nil
	}
	ahead := (offset + stride) % p.size
	if p.size <= stride {
		ahead = (offset + 1) % p.size
	}
	if err := writeFile(p.file, []byte(strconv.FormatUint(uint64(ahead), 10))); err != nil {
		return fmt.Errorf("noting place in pod range: %w", err)
	}
	p.noted = ahead
	return nil
}

// take marks an address as used; one outside the range does not matter.
func (p *pool) take(a netip.Addr) { p.mark(a, true) }

// put gives an address back.
func (p *pool) put(a netip.Addr) { p.mark(a, false) }

func (p *pool) mark(a netip.Addr, used bool) {
	b := a.As4()
	offset := binary.BigEndian.Uint32(b[:]) - p.first
	if offset >= p.size {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(offset, used)
}

func (p *pool) addr(offset uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], p.first+offset)
	return netip.AddrFrom4(b)
}
