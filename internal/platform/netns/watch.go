package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Firewalls are loaded again while we run (ufw reload, a Docker that starts later), and our rules
// go with the old ones. The kernel tells of every change; after a moment of quiet ours are checked.
const (
	firewallQuiet = 100 * time.Millisecond
	firewallHaste = time.Second // however much goes on
)

// watchFirewall repairs the host's rules after changes until the returned function is called.
func (n *Net) watchFirewall(ctx context.Context) (stop func(), err error) {
	events, err := firewallEvents(n.host)
	if err != nil {
		return nil, err
	}
	ctx = context.WithoutCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for awaitChange(events) {
			if err := n.repairEgress(); err != nil {
				n.cfg.Log.WarnContext(ctx, "restoring pods' way through the host's firewall", "error", err)
			}
		}
	}()
	return func() {
		_ = events.Close()
		<-done
	}, nil
}

// firewallEvents subscribes to changes of the host's nf_tables.
func firewallEvents(host *Space) (*os.File, error) {
	var fd int
	err := host.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		group := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}
		if err = unix.Bind(fd, group); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing to firewall changes: %w", err)
	}
	return os.NewFile(uintptr(fd), "nf_tables"), nil
}

// awaitChange returns true after a change followed by quiet, and false once events is closed.
func awaitChange(events *os.File) bool {
	buf := make([]byte, 64<<10)
	var haste time.Time
	for {
		_, err := events.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = events.SetReadDeadline(time.Time{})
			return true
		case err != nil && !errors.Is(err, unix.ENOBUFS): // overrun: there were changes
			return false
		}
		now := time.Now()
		if haste.IsZero() {
			haste = now.Add(firewallHaste)
		}
		quiet := now.Add(firewallQuiet)
		if quiet.After(haste) {
			quiet = haste
		}
		_ = events.SetReadDeadline(quiet)
	}
}

// repairEgress puts back what is missing and touches nothing else, so that it causes no event when
// all is well.
func (n *Net) repairEgress() error {
	intact, err := masquerades(n.host, n.cfg.Name)
	if err != nil {
		return err
	}
	if intact {
		return n.openFirewall()
	}
	return n.kernelEgress()
}

// masquerades tells whether the instance's table is loaded with all its rules.
func masquerades(host *Space, name string) (bool, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
	if err != nil {
		return false, fmt.Errorf("opening nf_tables: %w", err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("listing nf_tables chains: %w", err)
	}
	for _, chain := range chains {
		if chain.Table.Name == name {
			rules, err := conn.GetRules(chain.Table, chain)
			return len(rules) == masqueradeRules, err
		}
	}
	return false, nil
}
