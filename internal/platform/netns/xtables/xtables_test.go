package xtables_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ebb.dev/ebb/internal/platform/netns/netnstest"
	"ebb.dev/ebb/internal/platform/netns/xtables"
)

// rules is a filter table with chains, jumps, a rule without a target and extensions in it.
const rules = `*filter
:INPUT ACCEPT [3:4]
:FORWARD DROP [5:6]
:OUTPUT ACCEPT [7:8]
:DOCKER - [0:0]
:USER - [0:0]
[1:2] -A INPUT -i lo -j ACCEPT
[10:20] -A FORWARD -j USER
[0:0] -A FORWARD -i nothing
[30:40] -A FORWARD -p tcp -m tcp --dport 80 -j DOCKER
[50:60] -A FORWARD -g USER
[0:0] -A OUTPUT -d 192.0.2.1/32 -j REJECT --reject-with icmp-port-unreachable
[70:80] -A DOCKER -s 192.0.2.0/24 -j ACCEPT
[0:0] -A DOCKER -j RETURN
[90:100] -A USER -j RETURN
COMMIT
`

func TestInsertAndDeleteKeepEverythingElse(t *testing.T) {
	restore, err := exec.LookPath("iptables-legacy-restore")
	if err != nil {
		t.Skip("iptables-legacy, which writes and reads the tables to compare, is not installed")
	}
	w := netnstest.New(t)
	save := func() string {
		out, err := exec.Command("iptables-legacy-save", "-c", "-t", "filter").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	load := exec.Command(restore, "-c")
	err = w.Host.Do(func() error {
		in, err := os.CreateTemp(t.TempDir(), "rules")
		if err != nil {
			return err
		}
		defer func() { _ = in.Close() }()
		if _, err := in.WriteString(rules); err != nil {
			return err
		}
		if _, err := in.Seek(0, 0); err != nil {
			return err
		}
		load.Stdin = in
		if out, err := load.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		before := withoutTimes(save())
		table, err := xtables.Read("filter")
		if err != nil {
			return err
		}
		if !table.Refuses(xtables.Forward) {
			t.Error("a chain with policy DROP does not refuse")
		}
		ours := []xtables.Entry{xtables.Accept("ebb-x", ""), xtables.Accept("", "ebb-x")}
		table.Insert(xtables.Forward, ours...)
		if err := table.Write(); err != nil {
			return err
		}
		during := withoutTimes(save())
		if diff := cmp.Diff(insertBefore(before, "[10:20] -A FORWARD -j USER",
			"[0:0] -A FORWARD -i ebb-x -j ACCEPT", "[0:0] -A FORWARD -o ebb-x -j ACCEPT"), during); diff != "" {
			t.Errorf("after inserting (-want +got):\n%s", diff)
		}
		if table, err = xtables.Read("filter"); err != nil {
			return err
		}
		table.Delete(func(e xtables.Entry) bool {
			return cmp.Equal(e.Match(), ours[0].Match()) || cmp.Equal(e.Match(), ours[1].Match())
		})
		if err := table.Write(); err != nil {
			return err
		}
		if diff := cmp.Diff(before, withoutTimes(save())); diff != "" {
			t.Errorf("after deleting (-want +got):\n%s", diff)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// withoutTimes splits a saved table into lines, without those that say when it was saved.
func withoutTimes(saved string) []string {
	var out []string
	for line := range strings.Lines(saved) {
		if !strings.HasPrefix(line, "#") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func insertBefore(lines []string, at string, added ...string) []string {
	i := slices.Index(lines, at)
	return slices.Insert(slices.Clone(lines), max(i, 0), added...)
}
