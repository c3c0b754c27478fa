package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/platform/netns/xtables"
)

// legacyTries bounds how often a change is repeated because somebody else changed the table.
const legacyTries = 10

// acceptLegacy lets the instance's traffic pass the filter table of iptables-legacy, if that has
// anything against it, and tells whether it had. Tables of iptables-nft are seen by accept.
func acceptLegacy(host *Space, link string) (refused bool, err error) {
	err = editLegacy(host, func(t *xtables.Table) bool {
		refused = t.Refuses(xtables.Forward)
		if !refused {
			return false
		}
		have := 0
		for _, e := range t.Entries {
			if isLegacyAccept(e, link) {
				have++
			}
		}
		if have == len(legacyAccepts(link)) {
			return false
		}
		removeLegacyAccepts(t, link)
		t.Insert(xtables.Forward, legacyAccepts(link)...)
		return true
	})
	if err != nil {
		return refused, fmt.Errorf("opening iptables' FORWARD chain: %w", err)
	}
	return refused, nil
}

// removeLegacyRules takes those rules back.
func removeLegacyRules(host *Space, link string) error {
	err := editLegacy(host, func(t *xtables.Table) bool { return removeLegacyAccepts(t, link) })
	if err != nil {
		return fmt.Errorf("restoring iptables' FORWARD chain: %w", err)
	}
	return nil
}

// legacyAccepts are the two rules, in and out by link.
func legacyAccepts(link string) []xtables.Entry {
	return []xtables.Entry{xtables.Accept(link, ""), xtables.Accept("", link)}
}

func isLegacyAccept(e xtables.Entry, link string) bool {
	return slices.ContainsFunc(legacyAccepts(link), func(a xtables.Entry) bool { return bytes.Equal(a.Match(), e.Match()) })
}

func removeLegacyAccepts(t *xtables.Table, link string) bool {
	return t.Delete(func(e xtables.Entry) bool { return isLegacyAccept(e, link) })
}

// editLegacy reads the host's filter table and writes it back if change asks for it. A host that
// does not use iptables-legacy has no such table, and asking would make one, so the list comes first.
func editLegacy(host *Space, change func(*xtables.Table) bool) error {
	return host.Do(func() error {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err != nil || !slices.Contains(strings.Fields(string(names)), "filter") {
			return nil // no x_tables in this kernel
		}
		unlock := lockXtables()
		defer unlock()
		for range legacyTries {
			t, err := xtables.Read("filter")
			if err != nil {
				return err
			}
			if !change(t) {
				return nil
			}
			if err = t.Write(); !errors.Is(err, unix.EAGAIN) {
				return err
			}
		}
		return unix.EAGAIN
	})
}

// lockXtables keeps iptables itself away meanwhile, by the lock it takes. Without it the kernel
// still notices a clash.
func lockXtables() func() {
	f, err := os.OpenFile("/run/xtables.lock", os.O_RDONLY, 0)
	if err != nil {
		return func() {}
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	return func() { _ = f.Close() }
}
