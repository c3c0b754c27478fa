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
		"tun0\t00000000\t010011AC\t0003\t0\t0\t0\t00000080\t0\t0\t0\n" +
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

func TestPickNetworkPassesByWhatIsTaken(t *testing.T) {
	cases := map[string]struct {
		taken []string
		start int
		want  string
	}{
		"nothing taken":                 {nil, 3, "10.67.0.0/16"},
		"the first choice taken":        {[]string{"10.67.4.0/24"}, 3, "10.68.0.0/16"},
		"all of 10.0.0.0/8 taken":       {[]string{"10.0.0.0/8"}, 3, "172.19.0.0/16"},
		"containers have 172.16.0.0/12": {[]string{"10.0.0.0/8", "172.16.0.0/12"}, 3, "100.67.0.0/16"},
		"everything taken":              {[]string{"10.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10", "192.168.0.0/16"}, 3, "invalid Prefix"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var taken []netip.Prefix
			for _, p := range c.taken {
				taken = append(taken, netip.MustParsePrefix(p))
			}
			if got, _ := pickNetwork(taken, c.start); got.String() != c.want {
				t.Errorf("network = %s, want %s", got, c.want)
			}
		})
	}
}

func TestNodeNameIsOneKubernetesTakes(t *testing.T) {
	cases := map[string]struct{ host, want string }{
		"a plain name":           {"vm", "vm"},
		"capitals":               {"Laptop.Example", "laptop.example"},
		"what DNS does not take": {"my_box!", "my-box"},
		"odd dots":               {".a..-b-.", "a.b"},
		"nothing left":           {"___", "ebb"},
		"too long":               {strings.Repeat("a", 70), strings.Repeat("a", 63)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := nodeName(c.host); got != c.want {
				t.Errorf("nodeName(%q) = %q, want %q", c.host, got, c.want)
			}
		})
	}
}
