package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// Offsets in the IPv4 header.
const (
	sourceOffset  = 12
	addressLength = 4
)

// masqueradeRules is how many rules that table has: one for the pods, one for the namespace itself.
const masqueradeRules = 2

// masquerade loads the instance's own nft table: what pods and the namespace send to other hosts
// leaves under the host's address. The whole table is replaced in one transaction.
func masquerade(host *Space, c Config) error {
	conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
	if err != nil {
		return fmt.Errorf("opening nf_tables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: c.Name}
	conn.AddTable(table) // so that deleting works whether or not it was there
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	for _, source := range []netip.Prefix{c.PodCIDR, netip.PrefixFrom(c.NodeIP, c.NodeIP.BitLen())} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: masqueradeRule(source, c.Name)})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("loading masquerade rule: %w", err)
	}
	return nil
}

// masqueradeRule reads: from source and not out by our own link, take the host's address.
func masqueradeRule(source netip.Prefix, link string) []expr.Any {
	network := Network(source)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: sourceOffset, Len: addressLength},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: addressLength, Mask: network.Mask, Xor: make([]byte, addressLength)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: network.IP},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: linkName(link)},
		&expr.Counter{},
		&expr.Masq{},
	}
}

// linkName is a device's name as nf_tables compares it: with its ending zero, so not as a prefix.
func linkName(name string) []byte { return binaryutil.PutString(name + "\x00") }

// accept puts rules that let the instance's traffic pass at the head of every chain that stands in
// the way of forwarded packets. An accept in a chain of our own would not do: every chain at the
// hook has a say, and one drop is enough.
func accept(host *Space, link string) (changed []string, err error) {
	conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
	if err != nil {
		return nil, fmt.Errorf("opening nf_tables: %w", err)
	}
	chains, err := forwardChains(conn)
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return nil, fmt.Errorf("reading chain %s %s: %w", chain.Table.Name, chain.Name, err)
		}
		if !refuses(chain, rules) {
			continue
		}
		have := map[expr.MetaKey]bool{}
		for _, r := range rules {
			if key, ok := acceptsLink(r, link); ok {
				have[key] = true
			}
		}
		for _, key := range []expr.MetaKey{expr.MetaKeyOIFNAME, expr.MetaKeyIIFNAME} {
			if !have[key] {
				conn.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: acceptRule(key, link)})
			}
		}
		changed = append(changed, chain.Table.Name+" "+chain.Name)
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("loading accept rules: %w", err)
	}
	return changed, nil
}

// forwardChains lists the chains packets pass on their way through the host.
func forwardChains(conn *nftables.Conn) ([]*nftables.Chain, error) {
	var found []*nftables.Chain
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("listing nf_tables chains: %w", err)
		}
		for _, c := range chains {
			if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Type == nftables.ChainTypeFilter {
				found = append(found, c)
			}
		}
	}
	return found, nil
}

// refuses tells whether a chain can end a packet's way: by its policy or by any of its rules.
func refuses(chain *nftables.Chain, rules []*nftables.Rule) bool {
	if chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop {
		return true
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Reject, *expr.Target, *expr.Lookup:
				return true
			case *expr.Verdict:
				if e.Kind != expr.VerdictAccept && e.Kind != expr.VerdictReturn {
					return true
				}
			}
		}
	}
	return false
}

// acceptRule is written as iptables-nft writes one, so that its tools go on listing the chain.
func acceptRule(key expr.MetaKey, link string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: linkName(link)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// acceptsLink tells whether r is one of our rules for link, and which direction it lets pass.
func acceptsLink(r *nftables.Rule, link string) (expr.MetaKey, bool) {
	if len(r.Exprs) != 4 {
		return 0, false
	}
	meta, isMeta := r.Exprs[0].(*expr.Meta)
	cmp, isCmp := r.Exprs[1].(*expr.Cmp)
	verdict, isVerdict := r.Exprs[3].(*expr.Verdict)
	if !isMeta || !isCmp || !isVerdict || verdict.Kind != expr.VerdictAccept {
		return 0, false
	}
	return meta.Key, string(cmp.Data) == string(linkName(link))
}

// removeRules deletes the instance's table and its accept rules in others' chains. A host without
// nf_tables has none.
func removeRules(host *Space, name string) error {
	conn, err := nftables.New(nftables.WithNetNSFd(host.FD()))
	if err != nil {
		return fmt.Errorf("opening nf_tables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil //nolint:nilerr // no nf_tables, no rules of ours
	}
	for _, t := range tables {
		if t.Name == name {
			conn.DelTable(t)
		}
	}
	chains, err := forwardChains(conn)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return fmt.Errorf("reading chain %s %s: %w", chain.Table.Name, chain.Name, err)
		}
		for _, r := range rules {
			if _, ours := acceptsLink(r, name); ours {
				if err := conn.DelRule(r); err != nil {
					return fmt.Errorf("deleting accept rule: %w", err)
				}
			}
		}
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleting nf_tables rules: %w", err)
	}
	return nil
}
