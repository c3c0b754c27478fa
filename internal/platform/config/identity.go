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
	return id, nil
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
	id := Identity{ID: hex.EncodeToString(raw[:]), Network: network}
	if id.RegistryPort, err = freePort(); err != nil {
		return Identity{}, err
	}
	return id, WriteJSON(f.Identity(), id)
}

// freeNetwork picks a random /16 out of 10.64.0.0/10 that no address or route of this machine touches.
func freeNetwork() (netip.Prefix, error) {
	taken, err := takenPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	start, err := rand.Int(rand.Reader, big.NewInt(64))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("choosing addresses: %w", err)
	}
	for i := range 64 {
		second := 64 + (int(start.Int64())+i)%64
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(second), 0, 0}), 16)
		if !overlapsAny(candidate, taken) {
			return candidate, nil
		}
	}
	return netip.Prefix{}, errors.New("choosing addresses: every /16 of 10.64.0.0/10 is in use on this machine; remove a route or an unused ebb data folder's instance (`ebb down --data …`)")
}

func overlapsAny(p netip.Prefix, others []netip.Prefix) bool {
	for _, o := range others {
		if p.Overlaps(o) {
			return true
		}
	}
	return false
}

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
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = tmp.Write(append(data, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
