package config

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Identity is what an installation chose once, free of everything on the machine at that time.
//
// The addresses are one /16: pods in its lower half, Services in the third quarter, LoadBalancers
// and the node itself in the rest.
type Identity struct {
	// ID names namespaces, links and cgroups: six hex digits.
	ID string `json:"id"`
	// Network is the /16 everything below lies in.
	Network netip.Prefix `json:"network"`
	// RegistryPort is the image registry's on 127.0.0.1.
	RegistryPort int `json:"registryPort"`
	// Node is the node's name: the host's at first, kept when that changes, since pods and volumes
	// belong to it.
	Node string `json:"node"`
}

// KubeletPort is the port of the node's API at the node address.
const KubeletPort = 10250

func (i Identity) at(third, fourth byte) netip.Addr {
	b := i.Network.Addr().As4()
	return netip.AddrFrom4([4]byte{b[0], b[1], third, fourth})
}

// PodCIDR is where pods' addresses come from.
func (i Identity) PodCIDR() netip.Prefix { return netip.PrefixFrom(i.at(0, 0), 17) }

// ServiceCIDR is where ClusterIPs come from.
func (i Identity) ServiceCIDR() netip.Prefix { return netip.PrefixFrom(i.at(128, 0), 18) }

// LoadBalancerCIDR is where LoadBalancer addresses come from.
func (i Identity) LoadBalancerCIDR() netip.Prefix { return netip.PrefixFrom(i.at(192, 0), 20) }

// APIServiceIP is the ClusterIP of the Service kubernetes.default.
func (i Identity) APIServiceIP() netip.Addr { return i.at(128, 1) }

// DNSIP is the ClusterIP of cluster DNS.
func (i Identity) DNSIP() netip.Addr { return i.at(128, 10) }

// GatewayIP is the LoadBalancer address of the gateway's Service.
func (i Identity) GatewayIP() netip.Addr { return i.at(192, 1) }

// NodeIP is the node's address, inside ebb's own network namespace.
func (i Identity) NodeIP() netip.Addr { return i.at(255, 1) }

// HostIP is the host's end of the link to that namespace.
func (i Identity) HostIP() netip.Addr { return i.at(255, 2) }

// Name prefixes what others on the machine can see: network namespace and cgroup.
func (i Identity) Name() string { return "ebb-" + i.ID }

// LoadIdentity reads the folder's identity, choosing and keeping one the first time.
func LoadIdentity(f Folder) (Identity, error) {
	data, err := os.ReadFile(f.Identity())
	if errors.Is(err, fs.ErrNotExist) {
		return chooseIdentity(f)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("reading identity: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil {
		return Identity{}, fmt.Errorf("reading identity %s: %w; `ebb reset` starts afresh", f.Identity(), err)
	}
	if len(id.ID) != 6 || id.Network.Bits() != 16 || !id.Network.Addr().Is4() {
		return Identity{}, fmt.Errorf("reading identity %s: not one of ours; `ebb reset` starts afresh", f.Identity())
	}
	if id.Node == "" {
		id.Node = hostNode()
		return id, WriteJSON(f.Identity(), id)
	}
	return id, nil
}

// hostNode is the host's name as Kubernetes takes it for a node and its label.
func hostNode() string {
	name, _ := os.Hostname()
	return nodeName(name)
}

func nodeName(host string) string {
	const limit = 63
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, strings.ToLower(host))
	var parts []string
	for part := range strings.SplitSeq(name[:min(len(name), limit)], ".") {
		if part = strings.Trim(part, "-"); part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return "ebb"
	}
	return strings.Join(parts, ".")
}

func chooseIdentity(f Folder) (Identity, error) {
	var raw [3]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return Identity{}, fmt.Errorf("choosing a name: %w", err)
	}
	network, err := freeNetwork()
	if err != nil {
		return Identity{}, err
	}
	id := Identity{ID: hex.EncodeToString(raw[:]), Network: network, Node: hostNode()}
	if id.RegistryPort, err = freePort(); err != nil {
		return Identity{}, err
	}
	return id, WriteJSON(f.Identity(), id)
}

// ranges are private networks in the order they are tried, each as a run of /16s. The first is what
// other software takes least; the others are for machines whose routes cover all of 10.0.0.0/8.
var ranges = []struct {
	first, second byte
	count         int
}{{10, 64, 64}, {172, 16, 16}, {100, 64, 64}, {10, 128, 128}, {10, 0, 64}, {192, 168, 1}}

// freeNetwork picks a random /16 of the first range that has one no address or route of this machine
// touches.
func freeNetwork() (netip.Prefix, error) {
	taken, err := takenPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	start, err := rand.Int(rand.Reader, big.NewInt(1<<16))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("choosing addresses: %w", err)
	}
	if network, ok := pickNetwork(taken, int(start.Int64())); ok {
		return network, nil
	}
	return netip.Prefix{}, errors.New("choosing addresses: every private /16 is in use on this machine; remove a route or an unused ebb data folder's instance (`ebb down --data …`)")
}

func pickNetwork(taken []netip.Prefix, start int) (netip.Prefix, bool) {
	for _, r := range ranges {
		for i := range r.count {
			second := int(r.second) + (start+i)%r.count
			candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{r.first, byte(second), 0, 0}), 16)
			if !overlapsAny(candidate, taken) {
				return candidate, true
			}
		}
	}
	return netip.Prefix{}, false
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	return slices.ContainsFunc(others, p.Overlaps)
}

// temporary begins the names of files that are not whole yet.
const temporary = ".tmp-"

// Ports are looked for from a random place, so that two folders made while neither runs rarely meet.
const firstPort, lastPort = 20000, 29999

// freePort asks the kernel for a loopback port below the ephemeral range's usual start, so that a
// passing connection does not hold it at the next start.
func freePort() (int, error) {
	start, err := rand.Int(rand.Reader, big.NewInt(lastPort-firstPort+1))
	if err != nil {
		return 0, fmt.Errorf("choosing a port: %w", err)
	}
	for i := range lastPort - firstPort + 1 {
		port := firstPort + (int(start.Int64())+i)%(lastPort-firstPort+1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)) //nolint:noctx // closed at once
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("choosing a port: %w", err)
		}
		return port, nil
	}
	return 0, fmt.Errorf("choosing a port: none free on 127.0.0.1 between %d and %d", firstPort, lastPort)
}

// WriteJSON writes a value to a file that only its owner reads, whole or not at all.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return WriteFile(path, append(data, '\n'))
}

// WriteFile writes a file that only its owner reads, whole or not at all.
func WriteFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), temporary+"*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
