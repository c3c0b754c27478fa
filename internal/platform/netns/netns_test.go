package netns_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
	"ebb.dev/ebb/internal/platform/netns/xtables"
)

// snapshot describes everything on the host that a network could change.
func snapshot(t *testing.T, host *netns.Space) []string {
	t.Helper()
	var out []string
	note := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	err := host.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			note("link %s %s", l.Attrs().Name, l.Attrs().HardwareAddr)
		}
		for _, table := range []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL} {
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				note("route %s", r)
			}
		}
		rules, err := netlink.RuleList(netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, r := range rules {
			note("rule %s", r)
		}
		return filepath.WalkDir("/proc/sys/net/ipv4", func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err == nil {
				note("%s = %s", path, strings.TrimSpace(string(data)))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(append(out, ruleset(t, host)...), legacyRules(t, host)...)
}

// ruleset lists the host's nf_tables without counters.
func ruleset(t *testing.T, host *netns.Space) []string {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, table := range tables {
		out = append(out, "table "+table.Name)
	}
	chains, err := conn.ListChains()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chains {
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("chain %s %s with %d rules", c.Table.Name, c.Name, len(rules)))
	}
	return out
}

// legacyRules lists the entries of iptables-legacy, if that is in use.
func legacyRules(t *testing.T, host *netns.Space) []string {
	t.Helper()
	var out []string
	err := host.Do(func() error {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if errors.Is(err, os.ErrNotExist) || err == nil && !strings.Contains(string(names), "filter") {
			return nil
		}
		if err != nil {
			return err
		}
		table, err := xtables.Read("filter")
		if err != nil {
			return err
		}
		for _, e := range table.Entries {
			out = append(out, fmt.Sprintf("entry %x", e.Match()))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// reachesRemote tries a connection from the namespace to the remote machine.
func reachesRemote(t *testing.T, w *netnstest.World, n *netns.Net) {
	t.Helper()
	got, err := netnstest.Ask(t.Context(), n, w.RemoteAddr.String()+":80")
	if want := "remote " + w.HostAddr.String(); err != nil || got != want {
		t.Errorf("reaching the remote host: got %q, %v, want %q", got, err, want)
	}
}

func TestRemoveRestoresHost(t *testing.T) {
	for what, tt := range map[string]struct {
		forwarding, userspace bool
		firewall              func(*testing.T, *netns.Space)
	}{
		"plain host":                         {},
		"host that forwards already":         {forwarding: true},
		"userspace relay":                    {userspace: true},
		"iptables with policy DROP":          {firewall: iptablesDrop},
		"firewall that rejects at its end":   {firewall: firewalldReject},
		"firewall under a userspace relay":   {firewall: firewalldReject, userspace: true},
		"iptables-legacy with policy DROP":   {firewall: legacyDrop},
		"forwarding host with a policy DROP": {firewall: iptablesDrop, forwarding: true},
	} {
		t.Run(what, func(t *testing.T) {
			w := netnstest.New(t)
			netnstest.Serve(t, w.Remote, "0.0.0.0:80", "remote")
			err := w.Host.Do(func() error {
				// Values that turning forwarding on and off would not bring back by itself.
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/accept_redirects", []byte("0"), 0); err != nil {
					return err
				}
				if tt.forwarding {
					return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
				}
				return os.WriteFile("/proc/sys/net/ipv4/conf/uplink/forwarding", []byte("1"), 0)
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.firewall != nil {
				tt.firewall(t, w.Host)
			}
			before := snapshot(t, w.Host)
			c := w.Config(61)
			c.Userspace = tt.userspace
			n := w.Open(t, c)
			reachesRemote(t, w, n)
			if err := n.Remove(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, snapshot(t, w.Host)); diff != "" {
				t.Errorf("host differs (-before +after):\n%s", diff)
			}
			if _, err := os.Stat(c.RunDir + "/forwarding.json"); !os.IsNotExist(err) {
				t.Errorf("shared state is still there: %v", err)
			}
			if err := netns.Remove(c); err != nil {
				t.Errorf("removing again: %v", err)
			}
		})
	}
}

// iptablesDrop is what Docker and ufw leave: iptables' own table with a policy of DROP.
func iptablesDrop(t *testing.T, host *netns.Space) {
	t.Helper()
	policy := nftables.ChainPolicyDrop
	firewall(t, host, &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"}, &nftables.Chain{Name: "FORWARD", Policy: &policy}, nil)
}

// legacyDrop sets the policy in the older packet filter, as iptables-legacy does.
func legacyDrop(t *testing.T, host *netns.Space) {
	t.Helper()
	err := host.Do(func() error {
		table, err := xtables.Read("filter")
		if err != nil {
			return err
		}
		table.Deny(xtables.Forward)
		return table.Write()
	})
	if err != nil {
		t.Skipf("this kernel has no x_tables: %v", err)
	}
}

// firewalldReject accepts by policy and refuses by its last rule.
func firewalldReject(t *testing.T, host *netns.Space) {
	t.Helper()
	firewall(t, host, &nftables.Table{Family: nftables.TableFamilyINet, Name: "firewalld"}, &nftables.Chain{Name: "filter_FORWARD"}, []expr.Any{
		&expr.Counter{}, &expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED},
	})
}

// firewall loads a chain in the way of forwarded packets, with one rule at most.
func firewall(t *testing.T, host *netns.Space, table *nftables.Table, chain *nftables.Chain, rule []expr.Any) {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
	if err != nil {
		t.Fatal(err)
	}
	chain.Table, chain.Type = conn.AddTable(table), nftables.ChainTypeFilter
	chain.Hooknum, chain.Priority = nftables.ChainHookForward, nftables.ChainPriorityFilter
	forward := conn.AddChain(chain)
	if rule != nil {
		conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: rule})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenAdoptsWhatAKilledProcessLeft(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Serve(t, w.Remote, "0.0.0.0:80", "remote")
	before := snapshot(t, w.Host)
	c := w.Config(62)
	first, err := netns.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	during := snapshot(t, w.Host)
	if err := first.Close(); err != nil { // all a killed process does is close its descriptors
		t.Fatal(err)
	}
	second := w.Open(t, c)
	if diff := cmp.Diff(during, snapshot(t, w.Host)); diff != "" {
		t.Errorf("adopting changed the host (-first +second):\n%s", diff)
	}
	reachesRemote(t, w, second)
	netnstest.Serve(t, second, "10.62.64.1:443", "api")
	if got, err := netnstest.Ask(t.Context(), w.Host, "10.62.64.1:443"); err != nil {
		t.Errorf("host to adopted namespace: got %q, %v", got, err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := netns.Remove(c); err != nil { // a fresh process: nothing of ours is open
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, snapshot(t, w.Host)); diff != "" {
		t.Errorf("host differs (-before +after):\n%s", diff)
	}
}

func TestOpenReplacesALostNamespace(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Serve(t, w.Remote, "0.0.0.0:80", "remote")
	c := w.Config(63)
	n, err := netns.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(c.BindPath, unix.MNT_DETACH); err != nil { // as after a reboot: the file is there, the mount is not
		t.Fatal(err)
	}
	reachesRemote(t, w, w.Open(t, c))
}

func TestInstancesLiveSideBySide(t *testing.T) {
	w := netnstest.New(t)
	netnstest.Serve(t, w.Remote, "0.0.0.0:80", "remote")
	iptablesDrop(t, w.Host)
	before := snapshot(t, w.Host)
	a, b := w.Open(t, w.Config(64)), w.Open(t, w.Config(65))
	reachesRemote(t, w, a)
	reachesRemote(t, w, b)
	if err := a.Remove(); err != nil {
		t.Fatal(err)
	}
	reachesRemote(t, w, b)
	if err := b.Remove(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, snapshot(t, w.Host)); diff != "" {
		t.Errorf("host differs (-before +after):\n%s", diff)
	}
}

func TestFirewallLoadedLaterIsPassed(t *testing.T) {
	for what, load := range map[string]func(*testing.T, *netns.Space){
		"a policy of DROP": iptablesDrop,
		"everything flushed": func(t *testing.T, host *netns.Space) {
			t.Helper()
			conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
			if err != nil {
				t.Fatal(err)
			}
			conn.FlushRuleset()
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := netnstest.New(t)
			netnstest.Serve(t, w.Remote, "0.0.0.0:80", "remote")
			n := w.Open(t, w.Config(67))
			load(t, w.Host)
			deadline := time.Now().Add(5 * time.Second)
			for {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				got, err := netnstest.Ask(ctx, n, w.RemoteAddr.String()+":80")
				cancel()
				if err == nil && got == "remote "+w.HostAddr.String() {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("pods do not pass the new firewall: got %q, %v", got, err)
				}
			}
		})
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	w := netnstest.New(t)
	for what, change := range map[string]func(*netns.Config){
		"long name":      func(c *netns.Config) { c.Name = "a-name-too-long-for-a-link" },
		"no name":        func(c *netns.Config) { c.Name = "" },
		"no pod range":   func(c *netns.Config) { c.PodCIDR = netip.Prefix{} },
		"no such host":   func(c *netns.Config) { c.HostPath = "/does/not/exist" },
		"IPv6 as a node": func(c *netns.Config) { c.NodeIP = netip.IPv6Loopback() },
	} {
		c := w.Config(66)
		change(&c)
		if n, err := netns.Open(t.Context(), c); err == nil {
			_ = n.Remove()
			t.Errorf("%s: opened", what)
		}
	}
}

func TestOpenRefusesAddressesOfOthers(t *testing.T) {
	const i = 66
	for name, c := range map[string]struct {
		route func(netns.Config) netip.Prefix
		fine  bool
	}{
		"the same range":        {func(c netns.Config) netip.Prefix { return c.PodCIDR }, false},
		"a narrower one":        {func(c netns.Config) netip.Prefix { return netip.PrefixFrom(c.ServiceCIDR.Addr(), 28) }, false},
		"a wider one gives way": {func(netns.Config) netip.Prefix { return netip.MustParsePrefix("10.0.0.0/8") }, true},
		"a range beside ours":   {func(netns.Config) netip.Prefix { return netip.MustParsePrefix("10.67.0.0/16") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := netnstest.New(t)
			config := w.Config(i)
			if err := w.Host.Do(func() error {
				return netlink.RouteAdd(&netlink.Route{LinkIndex: 1, Dst: netns.Network(c.route(config))})
			}); err != nil {
				t.Fatal(err)
			}
			n, err := netns.Open(t.Context(), config)
			if err == nil {
				err = n.Close()
			} else if !errors.Is(err, netns.ErrTaken) {
				t.Errorf("error = %v, want ErrTaken", err)
			}
			if (err == nil) != c.fine {
				t.Errorf("Open() = %v, want it fine: %v", err, c.fine)
			}
			if err := netns.Remove(config); err != nil {
				t.Fatal(err)
			}
		})
	}
}
