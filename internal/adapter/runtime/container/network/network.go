// Package network gives pods their network namespaces, addresses and routes.
//
// A pod has one interface, a veth whose other end is in ebb's namespace, and an address of its own
// without a subnet. Every route and neighbour is set by hand on both sides, so that no packet ever
// waits for ARP:
//
//	pod: eth0 10.9.0.7/32 ── p0a090007 :ebb's namespace
//	     default via 169.254.1.1      10.9.0.7 dev p0a090007
//
// What a sandbox was given is a file in the state folder: another process finds it there. Files of
// another boot, and attachments that were never assigned, are cleared away by New.
package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/platform/netns"
)

// ErrExhausted means every address of the pod range is in use.
var ErrExhausted = errors.New("no free pod address")

// Pods hands out attachments. All methods are safe for concurrent use.
type Pods struct {
	net  *netns.Net
	dir  string
	boot string
	mtu  int
	pool *pool

	mu    sync.Mutex             // guards owned
	owned map[string]*Attachment // by sandbox ID
}

// An Attachment is a pod's place in the network.
type Attachment struct {
	IP        netip.Addr `json:"ip"`
	NetnsPath string     `json:"netns"` // file the pod's namespace is mounted on
	HostIf    string     `json:"link"`  // the veth's end in ebb's namespace
}

// New takes over what a former process on the same boot assigned and clears the rest away.
func New(n *netns.Net, podCIDR netip.Prefix, stateDir string) (*Pods, error) {
	p := &Pods{net: n, dir: stateDir, boot: netns.BootID(), mtu: n.MTU(), owned: map[string]*Attachment{}}
	for _, dir := range []string{p.dir, p.netnsDir(), p.recordDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making folder for pod networks: %w", err)
		}
	}
	var err error
	if p.pool, err = openPool(podCIDR, filepath.Join(p.dir, "next")); err != nil {
		return nil, err
	}
	for _, taken := range []netip.Addr{n.NodeIP()} {
		p.pool.take(taken)
	}
	if err := p.adopt(); err != nil {
		return nil, fmt.Errorf("adopting pod networks: %w", err)
	}
	return p, nil
}

func (p *Pods) netnsDir() string  { return filepath.Join(p.dir, "netns") }
func (p *Pods) recordDir() string { return filepath.Join(p.dir, "owners") }

// Prepare makes a namespace with loopback, eth0, address and routes, ready to send and receive. It
// belongs to nobody until Assign and does not outlive this process before.
func (p *Pods) Prepare(ctx context.Context) (*Attachment, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ip, err := p.pool.next()
	if err != nil {
		return nil, err
	}
	a := p.attachment(ip)
	if err := p.wire(a); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing pod network %s: %w", ip, err), p.tearDown(a))
	}
	return a, nil
}

// attachment names the parts that belong to an address.
func (p *Pods) attachment(ip netip.Addr) *Attachment {
	return &Attachment{IP: ip, NetnsPath: filepath.Join(p.netnsDir(), ip.String()), HostIf: linkName(ip)}
}

// Assign notes that the sandbox has the attachment; it then outlives this process.
func (p *Pods) Assign(a *Attachment, sandboxID string) error {
	p.mu.Lock()
	other, taken := p.owned[sandboxID]
	if !taken {
		p.owned[sandboxID] = a
	}
	p.mu.Unlock()
	if taken && other.IP != a.IP {
		return fmt.Errorf("assigning %s to sandbox %s: it has %s", a.IP, sandboxID, other.IP)
	}
	if err := p.write(sandboxID, a); err != nil {
		p.mu.Lock()
		delete(p.owned, sandboxID)
		p.mu.Unlock()
		return fmt.Errorf("assigning %s to sandbox %s: %w", a.IP, sandboxID, err)
	}
	return nil
}

// Lookup finds what a sandbox was assigned, by this process or a former one.
func (p *Pods) Lookup(sandboxID string) (*Attachment, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.owned[sandboxID]
	return a, ok
}

// Release takes the sandbox's network away; a sandbox without one is fine.
func (p *Pods) Release(_ context.Context, sandboxID string) error {
	p.mu.Lock()
	a, ok := p.owned[sandboxID]
	delete(p.owned, sandboxID)
	p.mu.Unlock()
	if !ok {
		return nil
	}
	if err := p.tearDown(a); err != nil {
		p.mu.Lock()
		p.owned[sandboxID] = a // so that the next try finds it
		p.mu.Unlock()
		return fmt.Errorf("releasing network of sandbox %s: %w", sandboxID, err)
	}
	return nil
}

// Discard takes down an attachment nobody was assigned.
func (p *Pods) Discard(_ context.Context, a *Attachment) error {
	if err := p.tearDown(a); err != nil {
		return fmt.Errorf("discarding pod network %s: %w", a.IP, err)
	}
	return nil
}

// Stats counts what the pod sent and received.
func (p *Pods) Stats(a *Attachment) (runtime.NetworkStats, error) {
	link, err := p.net.Routes().LinkByName(a.HostIf)
	if err != nil {
		return runtime.NetworkStats{}, fmt.Errorf("counting traffic of %s: %w", a.IP, err)
	}
	s := link.Attrs().Statistics
	if s == nil {
		return runtime.NetworkStats{}, fmt.Errorf("counting traffic of %s: %w", a.IP, runtime.ErrUnsupported)
	}
	// What our end received the pod sent.
	return runtime.NetworkStats{RxBytes: s.TxBytes, TxBytes: s.RxBytes, RxErrors: s.TxErrors, TxErrors: s.RxErrors}, nil
}
