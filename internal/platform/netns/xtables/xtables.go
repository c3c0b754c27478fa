// Package xtables reads and writes IPv4 tables of the kernel's older packet filter, the one behind
// iptables-legacy, for hosts whose firewall still lives there. It knows entries, chains and plain
// verdicts; matches and targets of extensions pass through as they are.
package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket options of linux/netfilter_ipv4/ip_tables.h.
const (
	optReplace     = 64
	optAddCounters = 65
	optInfo        = 64
	optEntries     = 65
)

// Hook is one of the five places in a packet's way.
type Hook int

// Forward is the way through the host.
const Forward Hook = 2

// hooks is how many there are.
const hooks = 5

// Layout of the structures, the same on all 64-bit machines.
const (
	nameSize        = 32
	infoSize        = nameSize + 4 + 2*4*hooks + 8
	entriesHeader   = 40
	replaceHeader   = 96
	countersHeader  = 40
	counterSize     = 16
	entryHeader     = 112
	inLink, outLink = 16, 32
	inMask, outMask = 48, 64
	targetOffset    = 88
	nextOffset      = 90
	comeFrom        = 92
	counters        = 96
	targetHeader    = 32
	standardSize    = targetHeader + 8
)

// Verdicts of the standard target as the kernel writes them; one that is not negative is the
// offset of the entry to go on with.
const (
	verdictDrop   = -1
	verdictAccept = -2
	verdictReturn = -5
)

// errMalformed means the kernel's answer is not laid out as expected.
var errMalformed = errors.New("unexpected layout of table")

// Table is a table as read, with the changes made to it.
type Table struct {
	Entries []Entry

	name       string
	validHooks uint32
	start, end [hooks]uint32 // offsets of each chain's first entry and of its policy, as read
	read       int           // number of entries as read
}

// Entry is a rule, a policy or the head of a chain.
type Entry struct {
	data  []byte
	at    uint32 // offset as read
	added bool
}

// Read fetches a table of the calling thread's network namespace.
func Read(name string) (*Table, error) {
	fd, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	info := make([]byte, infoSize)
	copy(info, name)
	if err := get(fd, optInfo, info); err != nil {
		return nil, fmt.Errorf("reading table %s: %w", name, err)
	}
	t := &Table{name: name, validHooks: number(info[nameSize:])}
	for i := range hooks {
		t.start[i] = number(info[nameSize+4+4*i:])
		t.end[i] = number(info[nameSize+4+4*hooks+4*i:])
	}
	t.read = int(number(info[infoSize-8:]))
	size := number(info[infoSize-4:])
	buf := make([]byte, entriesHeader+int(size))
	copy(buf, name)
	binary.NativeEndian.PutUint32(buf[nameSize:], size)
	if err := get(fd, optEntries, buf); err != nil {
		return nil, fmt.Errorf("reading entries of table %s: %w", name, err)
	}
	if t.Entries, err = split(buf[entriesHeader:]); err != nil {
		return nil, err
	}
	if len(t.Entries) != t.read {
		return nil, errMalformed
	}
	return t, nil
}

// split cuts a table into its entries.
func split(data []byte) ([]Entry, error) {
	var all []Entry
	for at := 0; at < len(data); {
		if len(data)-at < entryHeader+targetHeader {
			return nil, errMalformed
		}
		size := int(binary.NativeEndian.Uint16(data[at+nextOffset:]))
		target := int(binary.NativeEndian.Uint16(data[at+targetOffset:]))
		if target < entryHeader || size < target+targetHeader || at+size > len(data) {
			return nil, errMalformed
		}
		all = append(all, Entry{data: data[at : at+size], at: uint32(at)})
		at += size
	}
	return all, nil
}

// Accept is a rule that accepts packets by their incoming or outgoing link; empty means any.
func Accept(in, out string) Entry {
	d := make([]byte, entryHeader+standardSize)
	for _, l := range []struct {
		name       string
		at, maskAt int
	}{{in, inLink, inMask}, {out, outLink, outMask}} {
		copy(d[l.at:], l.name)
		if l.name != "" {
			for i := range len(l.name) + 1 { // with the ending zero: the whole name
				d[l.maskAt+i] = 0xff
			}
		}
	}
	binary.NativeEndian.PutUint16(d[targetOffset:], entryHeader)
	binary.NativeEndian.PutUint16(d[nextOffset:], uint16(len(d)))
	binary.NativeEndian.PutUint16(d[entryHeader:], standardSize)
	accept := int32(verdictAccept)
	binary.NativeEndian.PutUint32(d[entryHeader+targetHeader:], uint32(accept))
	return Entry{data: d, added: true}
}

// Match is the entry without what the kernel notes in it.
func (e Entry) Match() []byte {
	d := slices.Clone(e.data)
	clear(d[targetOffset-4 : targetOffset]) // nfcache
	clear(d[comeFrom : counters+counterSize])
	return d
}

// verdict is that of the standard target; ok is false for a target of an extension.
func (e Entry) verdict() (v int32, ok bool) {
	target := e.data[binary.NativeEndian.Uint16(e.data[targetOffset:]):]
	if target[2] != 0 || len(target) < targetHeader+4 { // the standard target has no name
		return 0, false
	}
	return int32(number(target[targetHeader:])), true
}

func (e Entry) setVerdict(v int32) {
	target := e.data[binary.NativeEndian.Uint16(e.data[targetOffset:]):]
	binary.NativeEndian.PutUint32(target[targetHeader:], uint32(v))
}

// Refuses tells whether a chain can end a packet's way: by policy or by any of its rules.
func (t *Table) Refuses(h Hook) bool {
	for _, e := range t.Entries {
		if e.added || e.at < t.start[h] || e.at > t.end[h] {
			continue
		}
		v, standard := e.verdict()
		passes := v == verdictAccept || v == verdictReturn || v == int32(e.at)+int32(len(e.data))
		if !standard || !passes {
			return true
		}
	}
	return false
}

// Deny sets a chain's policy to DROP.
func (t *Table) Deny(h Hook) {
	for _, e := range t.Entries {
		if !e.added && e.at == t.end[h] {
			e.setVerdict(verdictDrop)
		}
	}
}

// Insert puts entries at the head of a chain.
func (t *Table) Insert(h Hook, entries ...Entry) {
	i := slices.IndexFunc(t.Entries, func(e Entry) bool { return !e.added && e.at >= t.start[h] })
	t.Entries = slices.Insert(t.Entries, max(i, 0), entries...)
}

// Delete removes entries and tells whether there were any.
func (t *Table) Delete(which func(Entry) bool) bool {
	before := len(t.Entries)
	t.Entries = slices.DeleteFunc(t.Entries, which)
	return len(t.Entries) != before
}

// Write replaces the kernel's table by t, keeping the counters. It fails with EAGAIN if somebody
// else has replaced it since Read.
func (t *Table) Write() error {
	moved, size := t.layout()
	buf := make([]byte, replaceHeader, replaceHeader+int(size))
	copy(buf, t.name)
	put := func(at int, v uint32) { binary.NativeEndian.PutUint32(buf[at:], v) }
	put(nameSize, t.validHooks)
	put(nameSize+4, uint32(len(t.Entries)))
	put(nameSize+8, size)
	for i := range hooks {
		if t.validHooks&(1<<i) != 0 {
			put(nameSize+12+4*i, moved.start(t.start[i]))
			put(nameSize+12+4*hooks+4*i, moved.to(t.end[i]))
		}
	}
	old := make([]byte, counterSize*t.read)
	put(nameSize+12+8*hooks, uint32(t.read))
	//nolint:gosec // the kernel writes the old counters there; kept alive below
	binary.NativeEndian.PutUint64(buf[replaceHeader-8:], uint64(uintptr(unsafe.Pointer(&old[0]))))
	for _, e := range t.Entries {
		e.data = slices.Clone(e.data)
		if v, ok := e.verdict(); ok && v >= 0 {
			e.setVerdict(int32(moved.to(uint32(v))))
		}
		buf = append(buf, e.data...)
	}
	fd, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	err = unix.SetsockoptString(fd, unix.IPPROTO_IP, optReplace, string(buf))
	runtime.KeepAlive(old)
	if err != nil {
		return fmt.Errorf("replacing table %s: %w", t.name, err)
	}
	return t.restoreCounters(fd)
}

// restoreCounters gives the entries that were there before the counts they had when read.
func (t *Table) restoreCounters(fd int) error {
	buf := make([]byte, countersHeader, countersHeader+counterSize*len(t.Entries))
	copy(buf, t.name)
	binary.NativeEndian.PutUint32(buf[nameSize:], uint32(len(t.Entries)))
	for _, e := range t.Entries {
		buf = append(buf, e.data[counters:counters+counterSize]...)
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, optAddCounters, string(buf)); err != nil {
		return fmt.Errorf("restoring counters of table %s: %w", t.name, err)
	}
	return nil
}

// places says where entries went: pairs of old and new offset, ascending.
type places []struct{ old, now, head uint32 }

// layout finds the new offset of every entry that was there before, and the table's new size.
// The head of an entry is where entries inserted right before it begin.
func (t *Table) layout() (places, uint32) {
	var moved places
	var now uint32
	head := uint32(0)
	for _, e := range t.Entries {
		if !e.added {
			moved = append(moved, struct{ old, now, head uint32 }{e.at, now, head})
		}
		now += uint32(len(e.data))
		if !e.added {
			head = now
		}
	}
	return moved, now
}

// to is the new offset of the entry at an old one, or of the next that is left.
func (p places) to(old uint32) uint32 {
	for _, m := range p {
		if m.old >= old {
			return m.now
		}
	}
	return 0
}

// start is the new offset of a chain whose first entry was at an old one.
func (p places) start(old uint32) uint32 {
	for _, m := range p {
		if m.old >= old {
			return m.head
		}
	}
	return 0
}

func open() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("opening a socket to x_tables: %w", err)
	}
	return fd, nil
}

// get is getsockopt with a buffer that carries the question and receives the answer.
func get(fd, option int, buf []byte) error {
	size := uint32(len(buf))
	//nolint:gosec // x/sys has no getsockopt that takes a question
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(option),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func number(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
