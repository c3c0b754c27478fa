// Package relay carries pods' connections to other hosts in userspace, for hosts whose kernel can
// not masquerade.
package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// A Space opens sockets in a network namespace.
type Space interface {
	Do(fn func() error) error
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Config says between which namespaces to carry what.
type Config struct {
	Inside, Outside Space
	Routes          *netlink.Handle // inside
	Pods            netip.Prefix    // whose packets are diverted
	Direct          netip.Addr      // the host's end of the link, reached without the relay
	Log             *slog.Logger
}

// A Relay is the running diversion.
type Relay struct{}

// Open starts it.
func Open(context.Context, Config) (*Relay, error) { return nil, errors.ErrUnsupported }

// Close stops it.
func (r *Relay) Close() error { return nil }

// Forget removes what an earlier relay left.
func Forget(*netlink.Handle, netip.Prefix) error { return nil }
