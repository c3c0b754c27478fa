package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
)

func TestWeightKeepsTheBounds(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 512: 20, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares: got weight %d, want %d", shares, got, want)
		}
	}
}

func TestSettingsOfBothVersions(t *testing.T) {
	r := runtime.Resources{CPUShares: 512, CPUQuotaUS: 50_000, MemoryBytes: 1 << 26, PIDs: 9}
	show := func(list []setting) map[string]string {
		got := map[string]string{}
		for _, s := range list {
			got[s.file] = s.value
		}
		return got
	}
	want := map[string]string{
		"cpu.shares": "512", "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000",
		"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "67108864", "pids.max": "9",
	}
	if diff := cmp.Diff(want, show(v1Settings(r))); diff != "" {
		t.Error(diff)
	}
	want = map[string]string{"cpu.weight": "20", "cpu.max": "50000 100000", "memory.max": "67108864", "memory.swap.max": "0", "pids.max": "9"}
	if diff := cmp.Diff(want, show(v2Settings(r))); diff != "" {
		t.Error(diff)
	}
	want = map[string]string{"cpu.weight": "39", "cpu.max": "max 100000", "memory.max": "max", "memory.swap.max": "max", "pids.max": "max"}
	if diff := cmp.Diff(want, show(v2Settings(runtime.Resources{}))); diff != "" {
		t.Error(diff)
	}
}

func TestParseMountTellsHierarchies(t *testing.T) {
	for line, want := range map[string]Hierarchy{
		"30 24 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory":              {[]string{"memory"}, "/sys/fs/cgroup/memory"},
		"30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct":    {[]string{"cpu", "cpuacct"}, "/sys/fs/cgroup/cpu,cpuacct"},
		"30 24 0:26 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd": {[]string{"name=systemd"}, "/sys/fs/cgroup/systemd"},
		"30 24 0:26 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio":                {nil, "/sys/fs/cgroup/blkio"},
		"30 24 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate":       {[]string{Hybrid}, "/sys/fs/cgroup/unified"},
	} {
		if got, ok := parseMount(line); !ok || !cmp.Equal(got, want) {
			t.Errorf("%s: got %+v, %t", line, got, ok)
		}
	}
	if _, ok := parseMount("30 24 0:26 / /proc rw - proc proc rw"); ok {
		t.Error("took /proc for one")
	}
}

// version2 gives a tree on a version 2 hierarchy, or skips.
func version2(t *testing.T) (*Tree, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("control groups need root")
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			tree := &Tree{Unified: true, root: root}
			path := fmt.Sprintf("ebb-cgrouptest%d/pod/c0", os.Getpid())
			if err := tree.Make(path); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := tree.Remove(t.Context(), strings.Split(path, "/")[0]); err != nil && t.Context().Err() == nil {
					t.Error(err)
				}
				_ = removeTree(filepath.Join(root, strings.Split(path, "/")[0])) // the test's context has ended
			})
			return tree, path
		}
	}
	t.Skip("no version 2 hierarchy is mounted")
	return nil, ""
}

func TestDeviceFilterOfVersion2(t *testing.T) {
	tree, path := version2(t)
	major := int64(1)
	null, full := int64(3), int64(7)
	err := tree.AllowDevices(path, []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Major: &major, Minor: &null, Access: "rwm"},
		{Allow: true, Type: "c", Major: &major, Minor: &full, Access: "r"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		script string
		ok     bool
	}{
		"an allowed device is written":            {"echo > /dev/null", true},
		"a device without a rule is refused":      {"head -c1 < /dev/zero > /dev/null", false},
		"a device for reading is read":            {"head -c1 < /dev/full > /dev/null", true},
		"a device for reading is not opened both": {"exec 5<> /dev/full", false},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo $$ > "+tree.Procs(path)[0]+" && "+row.script)
			if out, err := cmd.CombinedOutput(); (err == nil) != row.ok {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestLifeOnVersion2(t *testing.T) {
	tree, path := version2(t)
	dir, err := unix.Open(tree.Folder(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if got, err := tree.Processes(strings.Split(path, "/")[0]); err != nil || len(got) != 1 || got[0] != cmd.Process.Pid {
		t.Errorf("processes %v, %v", got, err)
	}
	if err := tree.Freeze(path); err != nil {
		t.Error(err)
	}
	if events, err := readTable(tree.Folder(path), "cgroup.events"); err != nil || events["populated"] != 1 {
		t.Errorf("events %v, %v", events, err)
	}
	if u, err := tree.Measure(path); err != nil {
		t.Errorf("measured %+v, %v", u, err)
	}
	go func() { _ = cmd.Wait() }() // else its end stays in the group
	if err := tree.Kill(t.Context(), path); err != nil {
		t.Error(err)
	}
	if err := tree.Remove(t.Context(), strings.Split(path, "/")[0]); err != nil {
		t.Error(err)
	}
}
