package network

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/platform/netns"
	"ebb.dev/ebb/internal/platform/netns/netnstest"
)

// assigned prepares a pod network for a sandbox.
func assigned(t *testing.T, p *Pods, sandbox string) *Attachment {
	t.Helper()
	a, err := p.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Assign(a, sandbox); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAssignedNetworksOutliveTheProcess(t *testing.T) {
	w := netnstest.New(t)
	c := w.Config(35)
	first, err := netns.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	before, err := New(first, c.PodCIDR, w.Dir+"/pods")
	if err != nil {
		t.Fatal(err)
	}
	kept := assigned(t, before, "sandbox-1")
	parked, err := before.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	inKept, err := netns.OpenSpace(kept.NetnsPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inKept.Close() })
	netnstest.Serve(t, inKept, "0.0.0.0:80", "kept")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	n, pods := newPods(t, w, c)
	t.Cleanup(func() { _ = CleanUp(w.Dir + "/pods") })
	got, ok := pods.Lookup("sandbox-1")
	if !ok || *got != *kept {
		t.Fatalf("sandbox-1 has %v, want %v", got, kept)
	}
	if _, err := netnstest.Ask(t.Context(), w.Host, kept.IP.String()+":80"); err != nil {
		t.Errorf("kept pod does not answer: %v", err)
	}
	if _, err := os.Stat(parked.NetnsPath); !os.IsNotExist(err) {
		t.Errorf("parked network %s is still there: %v", parked.IP, err)
	}
	if _, err := n.Routes().LinkByName(parked.HostIf); err == nil {
		t.Errorf("link of parked network %s is still there", parked.IP)
	}
	next := assigned(t, pods, "sandbox-2")
	if next.IP == kept.IP || next.IP == parked.IP {
		t.Errorf("sandbox-2 got %s, which was in use a moment ago", next.IP)
	}
	if err := pods.Assign(next, "sandbox-1"); err == nil {
		t.Error("sandbox-1 was given a second network")
	}
	for range 2 {
		if err := pods.Release(t.Context(), "sandbox-1"); err != nil {
			t.Errorf("releasing: %v", err)
		}
	}
	if _, ok := pods.Lookup("sandbox-1"); ok {
		t.Error("released sandbox still has a network")
	}
}

func TestRecordsOfAnotherBootAreVoid(t *testing.T) {
	w := netnstest.New(t)
	c := w.Config(36)
	n, pods := newPods(t, w, c)
	t.Cleanup(func() { _ = CleanUp(w.Dir + "/pods") })
	old := assigned(t, pods, "sandbox-1")
	path := pods.recordPath(old)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(string(data), netns.BootID(), "another-boot", 1)
	if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := New(n, c.PodCIDR, w.Dir+"/pods")
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := after.Lookup("sandbox-1"); ok {
		t.Errorf("sandbox-1 still has %v", a)
	}
	if a := assigned(t, after, "sandbox-1"); a.IP == old.IP {
		t.Errorf("sandbox-1 got its address of the last boot, %s, which others may still know", a.IP)
	}
}

func TestReleasedPodIsUnreachableAtOnce(t *testing.T) {
	w := netnstest.New(t)
	n, pods := newPods(t, w, w.Config(37))
	a := assigned(t, pods, "sandbox-1")
	stats, err := pods.Stats(a)
	if err != nil || stats.RxErrors != 0 {
		t.Errorf("stats are %+v, %v", stats, err)
	}
	if err := pods.Release(t.Context(), "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := netnstest.Ask(t.Context(), n, a.IP.String()+":80"); err == nil || time.Since(begin) > time.Second {
		t.Errorf("released pod: %v after %v, want a quick refusal", err, time.Since(begin))
	}
}

func TestPoolGoesRoundAndSurvives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "next")
	p, err := openPool(netip.MustParsePrefix("10.9.0.0/24"), file)
	if err != nil {
		t.Fatal(err)
	}
	take := func(p *pool) netip.Addr {
		t.Helper()
		a, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	first := take(p)
	p.put(first)
	seen := map[netip.Addr]bool{}
	for range 253 {
		a := take(p)
		if a == first || seen[a] {
			t.Fatalf("%s came back while others were free", a)
		}
		seen[a] = true
	}
	if a := take(p); a != first {
		t.Errorf("last address is %s, want the released %s", a, first)
	}
	if _, err := p.next(); !errors.Is(err, ErrExhausted) {
		t.Errorf("full range gives %v, want %v", err, ErrExhausted)
	}
	small, err := openPool(netip.MustParsePrefix("10.9.0.0/16"), filepath.Join(t.TempDir(), "next"))
	if err != nil {
		t.Fatal(err)
	}
	handed := map[netip.Addr]bool{}
	for range 100 {
		handed[take(small)] = true
	}
	again, err := openPool(netip.MustParsePrefix("10.9.0.0/16"), small.file)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if a := take(again); handed[a] {
			t.Fatalf("%s was handed out before the restart", a)
		}
	}
}
