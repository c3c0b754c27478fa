package runtimetest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
)

func runIsolation(t *testing.T, s Subject) {
	t.Run("the container has its own processes, name and root", func(t *testing.T) {
		b := newBench(t, s)
		if got := b.say("id"); got != "0 0 0 [] /work tested 1\n" {
			t.Errorf("got %q", got)
		}
		if got := b.say("list", "/"); strings.Contains(got, "/lib") || strings.Contains(got, "/boot") || !strings.Contains(got, "/pod ") {
			t.Errorf("root: %q", got)
		}
		if got := b.say("list", "/proc"); processes(got) != 1 {
			t.Errorf("sees %d processes", processes(got))
		}
	})
	t.Run("writes stay in the container", func(t *testing.T) {
		b := newBench(t, s)
		b.say("write", "/etc/seen", "changed")
		if got := b.say("print", "/etc/seen"); got != "from the image\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a read-only root", func(t *testing.T) {
		b := newBench(t, s)
		spec := b.spec("write", "/etc/seen", "changed")
		spec.ReadOnlyRootFS = true
		b.start(spec)
		if end := b.ends.wait(t, spec.ID); end.ExitCode != 1 || !strings.Contains(logText(t, spec.LogPath), "read-only") {
			t.Errorf("got %+v, %q", end, logText(t, spec.LogPath))
		}
	})
	t.Run("layers are stacked in order", func(t *testing.T) {
		b := newBench(t, s)
		upper := t.TempDir()
		if err := os.Mkdir(filepath.Join(upper, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(upper, "etc/seen"), []byte("from above\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		spec := b.spec("print", "/etc/seen")
		spec.RootFS = append(spec.RootFS, upper)
		if got := b.output(spec); got != "from above\n" {
			t.Errorf("got %q", got)
		}
		for i := range 100 { // more than fits into the options of mount(2)
			dir := filepath.Join(t.TempDir(), fmt.Sprintf("a-layer-with-a-rather-long-name-%d", i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			spec.RootFS = append(spec.RootFS, dir)
		}
		spec.ID, spec.LogPath = unique("c"), spec.LogPath+".many"
		if got := b.output(spec); got != "from above\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("containers of a sandbox share memory files and name", func(t *testing.T) {
		b := newBench(t, s)
		b.say("write", "/dev/shm/note", "hello")
		if got := b.say("print", "/dev/shm/note"); got != "hello" {
			t.Errorf("got %q", got)
		}
		other, err := b.rt.StartSandbox(t.Context(), b.sandboxSpec())
		if err != nil {
			t.Fatal(err)
		}
		b.sandbox = other.ID
		if got := b.say("list", "/dev/shm"); got != "" {
			t.Errorf("another sandbox sees %q", got)
		}
	})
	t.Run("a shared process namespace", func(t *testing.T) {
		b := newBench(t, s, func(s *runtime.SandboxSpec) { s.ShareProcessNamespace = true })
		first := b.spec("sleep")
		b.start(first)
		if got := b.say("list", "/proc"); processes(got) != 3 {
			t.Errorf("sees %d processes, not the pod's own, the first container's and its own", processes(got))
		}
		left := b.spec("fork", "go")
		if got := b.output(left); !strings.HasPrefix(got, "child ") {
			t.Errorf("got %q", got)
		}
		if got := b.say("list", "/proc"); processes(got) != 3 {
			t.Errorf("%d processes: what an ended container forked still runs", processes(got))
		}
	})
	if !s.OwnKernel {
		isolateNode(t, s)
	}
}

// isolateNode looks at what the node's kernel shows to a container.
func isolateNode(t *testing.T, s Subject) {
	t.Run("devices", func(t *testing.T) { isolateDevices(t, newBench(t, s)) })
	t.Run("kernel files", func(t *testing.T) { isolateKernel(t, newBench(t, s)) })
	t.Run("the node's namespaces", func(t *testing.T) {
		b := newBench(t, s, func(s *runtime.SandboxSpec) { s.HostPID, s.HostIPC, s.HostNetwork = true, true, true })
		if got := b.say("list", "/proc"); !strings.Contains(got, fmt.Sprintf("/proc/%d ", os.Getpid())) {
			t.Error("does not see the node's processes")
		}
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Fields(b.say("id")); got[5] != host {
			t.Errorf("is called %q, the node %q", got[5], host)
		}
	})
	t.Run("no signal is ignored", func(t *testing.T) {
		status := newBench(t, s).say("print", "/proc/self/status")
		_, rest, _ := strings.Cut(status, "SigIgn:\t")
		field, _, _ := strings.Cut(rest, "\n")
		ignored, err := strconv.ParseUint(field, 16, 64)
		// Signals from 32 on are the C library's own; posix_spawn leaves one of them ignored.
		if err != nil || ignored&(1<<31-1) != 0 {
			t.Errorf("ignored signals %q, %v", field, err)
		}
	})
	t.Run("kernel settings of the sandbox", func(t *testing.T) {
		b := newBench(t, s, func(s *runtime.SandboxSpec) {
			s.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "81"}
		})
		got := b.say("print", "/proc/sys/kernel/shm_rmid_forced", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
		if got != "1\n81\n" {
			t.Errorf("got %q", got)
		}
	})
}

func isolateDevices(t *testing.T, b *bench) {
	lines := strings.Split(strings.TrimSpace(b.say("list", "/dev")), "\n")
	got := map[string]string{}
	for _, l := range lines {
		name, mode, _ := strings.Cut(l, " ")
		got[strings.TrimPrefix(name, "/dev/")] = mode
	}
	for name, mode := range map[string]string{
		"null": "Dcrw-rw-rw-", "zero": "Dcrw-rw-rw-", "full": "Dcrw-rw-rw-", "random": "Dcrw-rw-rw-", "urandom": "Dcrw-rw-rw-", "tty": "Dcrw-rw-rw-",
		"fd": "Lrwxrwxrwx", "stdin": "Lrwxrwxrwx", "stdout": "Lrwxrwxrwx", "stderr": "Lrwxrwxrwx", "ptmx": "Lrwxrwxrwx",
		"pts": "drwxr-xr-x", "shm": "dtrwxrwxrwx", "mqueue": "dtrwxrwxrwx",
	} {
		if got[name] != mode {
			t.Errorf("/dev/%s is %q, not %q", name, got[name], mode)
		}
		delete(got, name)
	}
	delete(got, "core") // a link some runtimes make
	if len(got) > 0 {
		t.Errorf("more than expected in /dev: %v", got)
	}
	if got := b.say("try", "mknod", "/tmp/loop"); got != "answer: <nil>\n" {
		t.Errorf("making a device node: %q", got)
	}
	if !b.subject.MemoryLimits {
		return
	}
	spec := b.spec("sleep")
	b.start(spec)
	b.exec(spec.ID, "try", "mknod", "/tmp/loop")
	if got, _ := b.exec(spec.ID, "try", "open", "/tmp/loop"); !strings.Contains(got, "operation not permitted") {
		t.Errorf("opening a disk of the node: %q", got)
	}
	if got, _ := b.exec(spec.ID, "try", "open", "/dev/full"); got != "answer: <nil>\n" {
		t.Errorf("opening /dev/full: %q", got)
	}
}

func isolateKernel(t *testing.T, b *bench) {
	spec := b.spec("print", "/proc/self/mountinfo")
	spec.MaskedPaths = []string{"/proc/kcore", "/proc/scsi", "/sys/firmware", "/proc/not-there"}
	spec.ReadonlyPaths = []string{"/proc/sys", "/proc/irq"}
	mounts := map[string]string{}
	for line := range strings.Lines(b.output(spec)) {
		f := strings.Fields(line)
		kind := f[slices.Index(f, "-")+1]
		mounts[f[4]] = kind + " " + strings.SplitN(f[5], ",", 2)[0]
	}
	for path, want := range map[string]string{
		"/": "overlay rw", "/proc": "proc rw", "/dev": "tmpfs rw", "/sys": "sysfs ro", "/proc/sys": "proc ro", "/dev/mqueue": "mqueue rw", "/dev/pts": "devpts rw",
	} {
		if mounts[path] != want {
			t.Errorf("%s is %q, not %q", path, mounts[path], want)
		}
	}
	if mounts["/sys/firmware"] != "" && mounts["/sys/firmware"] != "tmpfs ro" {
		t.Errorf("/sys/firmware is %q", mounts["/sys/firmware"])
	}
	for path, mount := range mounts {
		if strings.HasPrefix(path, "/sys/fs/cgroup") && strings.HasPrefix(mount, "cgroup") && !strings.HasSuffix(mount, " ro") {
			t.Errorf("%s is %q", path, mount)
		}
	}
	if b.subject.MemoryLimits && mounts["/sys/fs/cgroup"] == "" {
		t.Error("no control groups are shown")
	}
	spec = b.spec("try", "open", "/proc/sys/kernel/domainname")
	spec.ReadonlyPaths = []string{"/proc/sys"}
	if got := b.output(spec); !strings.Contains(got, "read-only") {
		t.Errorf("opening a setting for writing: %q", got)
	}
	spec = b.spec("print", "/proc/meminfo")
	spec.MaskedPaths = []string{"/proc/meminfo"}
	if got := b.output(spec); got != "" {
		t.Errorf("a masked file has %d bytes", len(got))
	}
}

func runMounts(t *testing.T, s Subject) {
	b := newBench(t, s)
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "file"), []byte("of the node\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bind := func(from, to string, options ...string) specs.Mount {
		return specs.Mount{Type: "bind", Source: from, Destination: to, Options: append([]string{"rbind"}, options...)}
	}
	for name, row := range map[string]struct {
		mount specs.Mount
		args  []string
		want  string
	}{
		"a folder":                     {bind(source, "/data"), []string{"print", "/data/file"}, "of the node\n"},
		"a file":                       {bind(filepath.Join(source, "file"), "/data/one"), []string{"print", "/data/one"}, "of the node\n"},
		"a file over one of the image": {bind(filepath.Join(source, "file"), "/etc/seen"), []string{"print", "/etc/seen"}, "of the node\n"},
		"a place behind a link":        {bind(source, "/links/out/x"), []string{"print", "/etc/x/file"}, "of the node\n"},
		"a place behind dots":          {bind(source, "/../../../data"), []string{"print", "/data/file"}, "of the node\n"},
		"memory":                       {specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/mem", Options: []string{"size=64k", "mode=1777"}}, []string{"list", "/mem"}, ""},
		"a folder that may be written": {bind(source, "/data", "rw"), []string{"write", "/data/new", "x"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec := b.spec(row.args...)
			spec.Mounts = []specs.Mount{row.mount}
			if got := b.output(spec); got != row.want {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("an opened folder", func(t *testing.T) {
		f, err := os.Open(source)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		spec := b.spec("print", "/data/file")
		spec.Mounts = []specs.Mount{bind(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), "/data")}
		if got := b.output(spec); got != "of the node\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a read-only folder", func(t *testing.T) {
		spec := b.spec("write", "/data/file", "x")
		spec.Mounts = []specs.Mount{bind(source, "/data", "ro")}
		b.start(spec)
		if end := b.ends.wait(t, spec.ID); end.ExitCode != 1 {
			t.Errorf("got %+v", end)
		}
	})
	t.Run("a termination log", func(t *testing.T) {
		log := filepath.Join(source, "termination")
		if err := os.WriteFile(log, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		spec := b.spec("write", "/dev/termination-log", "goodbye")
		spec.TerminationLog = log
		b.output(spec)
		if got, err := os.ReadFile(log); err != nil || string(got) != "goodbye" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("a source that is not there is an error", func(t *testing.T) {
		spec := b.spec("sleep")
		spec.Mounts = []specs.Mount{bind("/nowhere/at/all", "/data")}
		if _, err := b.rt.StartContainer(t.Context(), spec); err == nil {
			t.Error("it started")
		}
	})
	if s.OwnKernel {
		return // there it is the pod's own /proc
	}
	t.Run("mounts below /proc are refused", func(t *testing.T) {
		spec := b.spec("sleep")
		spec.Mounts = []specs.Mount{bind(source, "/proc/sys")}
		if _, err := b.rt.StartContainer(t.Context(), spec); err == nil {
			t.Error("it started")
		}
	})
	if _, err := os.Stat("/data"); err == nil {
		t.Error("a mount point was made on the node")
	}
}
