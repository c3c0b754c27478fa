package config

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"strings"
)

// widest is the shortest prefix that counts as somebody's network.
const widest = 8

// takenPrefixes tells what addresses and routes this machine has now, the default route apart.
func takenPrefixes() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("reading addresses: %w", err)
	}
	var taken []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			taken = append(taken, p.Masked())
		}
	}
	file, err := os.Open("/proc/net/route")
	if errors.Is(err, fs.ErrNotExist) {
		return taken, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	defer func() { _ = file.Close() }()
	routes, err := parseRoutes(file)
	return append(taken, routes...), err
}

// parseRoutes reads the kernel's table: addresses and masks are hex in host byte order.
func parseRoutes(r io.Reader) ([]netip.Prefix, error) {
	var out []netip.Prefix
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[0] == "Iface" {
			continue
		}
		dest, err1 := hex.DecodeString(fields[1])
		mask, err2 := hex.DecodeString(fields[7])
		if err1 != nil || err2 != nil || len(dest) != 4 || len(mask) != 4 {
			continue
		}
		ones := bits.OnesCount32(binary.BigEndian.Uint32(mask))
		if ones < widest {
			continue // the default route, also in the halves that VPNs cut it into
		}
		addr := netip.AddrFrom4([4]byte{dest[3], dest[2], dest[1], dest[0]})
		out = append(out, netip.PrefixFrom(addr, ones).Masked())
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	return out, nil
}
