package netns

import (
	"context"
	"errors"
	"fmt"

	"ebb.dev/ebb/internal/platform/netns/relay"
)

// errUserspace means the configuration asks for the relay.
var errUserspace = errors.New("chosen by configuration")

// egress sees to it that pods reach other hosts: by the kernel if it can, else by the relay.
func (n *Net) egress(ctx context.Context) error {
	err := n.kernelEgress()
	if err == nil {
		if n.stopWatch, err = n.watchFirewall(ctx); err != nil {
			n.limit("pods lose other hosts when the firewall is loaded again: %v", err)
		}
		return relay.Forget(n.route, n.cfg.PodCIDR, n.cfg.NodeIP, n.cfg.HostIP)
	}
	if !errors.Is(err, errUserspace) {
		n.cfg.Log.WarnContext(ctx, "pods reach other hosts through a userspace relay", "error", err)
		n.limit("pods reach other hosts through a userspace relay, by TCP and UDP only: %v", err)
	}
	if undone := errors.Join(removeRules(n.host, n.cfg.Name), newForwarding(n.host, n.cfg).release()); undone != nil {
		return undone
	}
	if err := n.openRelay(ctx); err != nil {
		n.cfg.Log.WarnContext(ctx, "pods reach no other hosts", "error", err)
		n.limit("pods reach no other hosts: %v", err)
	}
	return nil
}

// kernelEgress turns on forwarding, masquerades, and opens the firewall for our link.
func (n *Net) kernelEgress() error {
	if n.cfg.Userspace {
		return errUserspace
	}
	if err := masquerade(n.host, n.cfg); err != nil {
		return err
	}
	if err := n.openFirewall(); err != nil {
		return err
	}
	return newForwarding(n.host, n.cfg).acquire()
}

// openFirewall lets our link's packets pass whatever of the host's chains would stop them.
func (n *Net) openFirewall() error {
	opened, err := accept(n.host, n.cfg.Name)
	if err != nil {
		return err
	}
	legacy, err := acceptLegacy(n.host, n.cfg.Name)
	if err != nil {
		return err
	}
	if legacy {
		opened = append(opened, "iptables FORWARD")
	}
	if len(opened) > 0 {
		n.cfg.Log.Debug("letting pods' packets pass the host's firewall", "chains", opened)
	}
	return nil
}

// openRelay diverts what pods send to other hosts into the relay, which dials from the host.
func (n *Net) openRelay(ctx context.Context) error {
	r, err := relay.Open(ctx, relay.Config{
		Inside:  n.inner,
		Outside: n.host,
		Routes:  n.route,
		Pods:    n.cfg.PodCIDR,
		Node:    n.cfg.NodeIP,
		Direct:  n.cfg.HostIP,
		Uplink:  nodeLink,
		MTU:     n.MTU(),
		Log:     n.cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("opening userspace relay: %w", err)
	}
	n.mu.Lock()
	n.relay = r
	n.mu.Unlock()
	return nil
}
