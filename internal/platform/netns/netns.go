// Package netns owns ebb's network namespace: the node's address, the pods' ends of the network,
// the route that makes every Service address local, and what the host needs to reach all of it.
//
// The host gets one veth and four routes; everything else, listeners included, lives inside:
//
//	host ──veth── ebb's namespace ──veth── pod
//	 │                │  └──veth── pod
//	 └─ loopback      └─ NodeIP, local ServiceCIDR and LoadBalancerCIDR (AnyIP)
//
// The namespace is held by a bind mount, so it outlives the process that made it: Open adopts what
// a killed process left, Remove takes it down from a fresh one. Pods reach other hosts by IP
// forwarding and one masquerade rule, or by a userspace relay where the kernel cannot.
package netns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"

	"ebb.dev/ebb/internal/platform/netns/relay"
)

// maxLinkName is the longest name the kernel takes for a network device.
const maxLinkName = 15

// Config says what the namespace is called, where it is kept and which addresses it owns.
type Config struct {
	Name     string // of the host's veth, the nft table and the entry in RunDir; at most 15 characters
	BindPath string // file the namespace is mounted on

	NodeIP netip.Addr // ebb's end of the veth, the node's address
	HostIP netip.Addr // the host's end

	PodCIDR          netip.Prefix
	ServiceCIDR      netip.Prefix
	LoadBalancerCIDR netip.Prefix

	// HostPath is the namespace that plays the host; empty means the process's own.
	HostPath string
	// RunDir keeps what several instances share on one host: who needs forwarding, and the values
	// to put back when none does. Empty means /run/ebb.
	RunDir string
	// Userspace sends pods' traffic to other hosts through the relay even where nf_tables works.
	Userspace bool

	Log *slog.Logger
}

// A Net is the open namespace. All methods are safe for concurrent use.
type Net struct {
	cfg   Config
	host  *Space
	inner *Space
	route *netlink.Handle // in the namespace

	stopWatch func() // of the host's firewall; nil while nothing is watched

	mu     sync.Mutex // guards limits and relay
	limits []string
	relay  *relay.Relay
}

// Open makes the namespace with its links and routes, or adopts the one a former process left, and
// sees to it that pods reach other hosts. It can be repeated; nothing that fits is touched.
func Open(ctx context.Context, c Config) (*Net, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	host, err := openSpace(c.HostPath)
	if err != nil {
		return nil, fmt.Errorf("opening the host's network namespace: %w", err)
	}
	inner, err := openOrMake(c.BindPath)
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	n := &Net{cfg: c, host: host, inner: inner}
	if err := n.build(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("building network %s: %w", c.Name, err), n.Close())
	}
	return n, nil
}

// complete fills defaults and refuses what the kernel would refuse later.
func (c Config) complete() (Config, error) {
	if c.Name == "" || len(c.Name) > maxLinkName {
		return c, fmt.Errorf("naming network %q: want 1 to %d characters", c.Name, maxLinkName)
	}
	for what, addr := range map[string]netip.Addr{"node": c.NodeIP, "host": c.HostIP} {
		if !addr.Is4() {
			return c, fmt.Errorf("addressing network %s: %s address %s is not IPv4", c.Name, what, addr)
		}
	}
	for what, p := range map[string]netip.Prefix{"pod": c.PodCIDR, "service": c.ServiceCIDR, "load balancer": c.LoadBalancerCIDR} {
		if !p.IsValid() || !p.Addr().Is4() {
			return c, fmt.Errorf("addressing network %s: %s range %s is not an IPv4 range", c.Name, what, p)
		}
	}
	if c.HostPath == "" {
		c.HostPath = "/proc/self/ns/net"
	}
	if c.RunDir == "" {
		c.RunDir = "/run/ebb"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// openOrMake adopts the namespace mounted on path, or makes one and mounts it there.
func openOrMake(path string) (*Space, error) {
	if isMounted(path) {
		return openSpace(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making folder of network namespace: %w", err)
	}
	return Make(path, innerSysctls)
}

// innerSysctls prepares the namespace; they concern nothing outside it. Only forwarding is vital.
func innerSysctls() error {
	for key, value := range map[string]string{
		"ipv4/conf/all/rp_filter":            "0",
		"ipv4/conf/default/rp_filter":        "1", // a pod can only send from its own address
		"ipv4/conf/all/send_redirects":       "0",
		"ipv4/conf/default/send_redirects":   "0",
		"ipv4/conf/default/accept_redirects": "0",
		"ipv4/tcp_tw_reuse":                  "1", // many connections to few endpoints
		"ipv6/conf/default/disable_ipv6":     "1",
	} {
		_ = setSysctl(key, value)
	}
	return setSysctl("ipv4/ip_forward", "1")
}

// build brings links, routes and the way out into the wanted state.
func (n *Net) build(ctx context.Context) error {
	handle, err := n.inner.handle()
	if err != nil {
		return err
	}
	n.route = handle
	if err := n.connect(); err != nil {
		return err
	}
	return n.egress(ctx)
}

// Path names the file the namespace is mounted on.
func (n *Net) Path() string { return n.cfg.BindPath }

// FD is the namespace's descriptor; it stays valid until Close.
func (n *Net) FD() int { return n.inner.FD() }

// NodeIP is the node's address, where NodePorts and the API listen inside the namespace.
func (n *Net) NodeIP() netip.Addr { return n.cfg.NodeIP }

// MTU is that of the link to the host, and the right one for pods.
func (n *Net) MTU() int {
	link, err := n.route.LinkByName(nodeLink)
	if err != nil {
		return ethernetMTU
	}
	return link.Attrs().MTU
}

// Routes is a netlink handle inside the namespace; it stays valid until Close.
func (n *Net) Routes() *netlink.Handle { return n.route }

// Do runs fn on a thread that is inside the namespace. fn must not start goroutines that rely on it.
func (n *Net) Do(fn func() error) error { return n.inner.Do(fn) }

// Limits tells what is degraded on this host, one sentence each.
func (n *Net) Limits() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.limits...)
}

// limit notes a sentence for Limits.
func (n *Net) limit(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limits = append(n.limits, fmt.Sprintf(format, args...))
}

// Close lets go of the namespace and keeps everything in it running.
func (n *Net) Close() error {
	n.mu.Lock()
	r := n.relay
	n.relay = nil
	n.mu.Unlock()
	if n.stopWatch != nil {
		n.stopWatch()
		n.stopWatch = nil
	}
	var errs []error
	if r != nil {
		errs = append(errs, r.Close())
	}
	if n.route != nil {
		n.route.Close()
	}
	return errors.Join(append(errs, n.inner.Close(), n.host.Close())...)
}

// Remove closes the namespace and deletes it with everything it changed on the host.
func (n *Net) Remove() error {
	return errors.Join(n.Close(), Remove(n.cfg))
}

// Remove deletes the namespace c describes and puts the host back as it was, whoever made it. It is
// safe to repeat and does nothing where there is nothing.
func Remove(c Config) error {
	c, err := c.complete()
	if err != nil {
		return err
	}
	host, err := openSpace(c.HostPath)
	if err != nil {
		return fmt.Errorf("opening the host's network namespace: %w", err)
	}
	return errors.Join(
		removeRules(host, c.Name),
		removeLegacyRules(host, c.Name),
		removeLink(host, c.Name),
		newForwarding(host, c).release(),
		Unmake(c.BindPath),
		host.Close(),
	)
}
