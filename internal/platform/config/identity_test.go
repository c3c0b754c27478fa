package config

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdentityIsChosenOnceAndKept(t *testing.T) {
	folder, err := Folder(t.TempDir() + "/data").Make()
	if err != nil {
		t.Fatal(err)
	}
	first, err := LoadIdentity(folder)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadIdentity(folder)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.Network.String(), second.Network.String()); diff != "" || first.ID != second.ID || first.RegistryPort != second.RegistryPort {
		t.Errorf("identity changed between starts: %+v, %+v", first, second)
	}
	info, err := os.Stat(string(folder))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder mode = %v, %v; want 0700", info.Mode().Perm(), err)
	}
}

func TestIdentityRangesDoNotOverlap(t *testing.T) {
	id := Identity{Network: netip.MustParsePrefix("10.77.0.0/16")}
	ranges := []netip.Prefix{id.PodCIDR(), id.ServiceCIDR(), id.LoadBalancerCIDR(), netip.PrefixFrom(id.NodeIP(), 32), netip.PrefixFrom(id.HostIP(), 32)}
	for i, a := range ranges {
		if !id.Network.Overlaps(a) {
			t.Errorf("%s lies outside %s", a, id.Network)
		}
		for _, b := range ranges[i+1:] {
			if a.Overlaps(b) {
				t.Errorf("%s overlaps %s", a, b)
			}
		}
	}
	if !id.ServiceCIDR().Contains(id.DNSIP()) || !id.LoadBalancerCIDR().Contains(id.GatewayIP()) {
		t.Error("well-known addresses lie outside their ranges")
	}
}

func TestLoadIdentityRefusesAForeignFile(t *testing.T) {
	folder := Folder(t.TempDir())
	if err := os.WriteFile(folder.Identity(), []byte(`{"id":"x"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(folder); err == nil || !strings.Contains(err.Error(), "ebb reset") {
		t.Errorf("error = %v, want one that names the way out", err)
	}
}

func TestParseRoutes(t *testing.T) {
	table := "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t0000400A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
	got, err := parseRoutes(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.64.0.0/16")}
	if diff := cmp.Diff(len(want), len(got)); diff != "" || got[0] != want[0] {
		t.Errorf("routes = %v, want %v", got, want)
	}
}
