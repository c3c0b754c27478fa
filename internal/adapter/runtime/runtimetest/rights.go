package runtimetest

import (
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func runRights(t *testing.T, s Subject) {
	b := newBench(t, s)
	t.Run("users and groups", func(t *testing.T) {
		spec := b.spec("id")
		spec.Process.User = specs.User{UID: 1000, GID: 2000, AdditionalGids: []uint32{3000, 4000}}
		if got := b.output(spec); got != "1000 1000 2000 [3000 4000] /work tested 1\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("HOME comes from the image's users", func(t *testing.T) {
		spec := b.spec("env")
		spec.Process.User = specs.User{UID: 1000}
		if got := b.output(spec); !strings.Contains(got, "HOME=/home/user\n") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a user may use its own output", func(t *testing.T) {
		spec := b.spec("write", "/dev/stdout", "hello\n")
		spec.Process.User = specs.User{UID: 1000, GID: 1000}
		if got := b.output(spec); got != "hello\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("limits of resources", func(t *testing.T) {
		spec := b.spec("print", "/proc/self/limits")
		spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 123, Hard: 456}, {Type: "RLIMIT_CORE"}}
		got := strings.Join(strings.Fields(b.output(spec)), " ")
		// A Go program raises its own soft limit of files: the hard one is telling.
		if !strings.Contains(got, " 456 files ") || !strings.Contains(got, "Max core file size 0 0 ") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("capabilities", func(t *testing.T) { checkCapabilities(t, b) })
	if !s.OwnKernel {
		rightsOnNode(t, s, b)
	}
}

// rightsOnNode looks at rights that the node's kernel keeps.
func rightsOnNode(t *testing.T, s Subject, b *bench) {
	t.Run("no new rights", func(t *testing.T) {
		spec := b.spec("status", "NoNewPrivs")
		spec.Process.NoNewPrivileges = true
		if got := b.output(spec); got != "NoNewPrivs: 1\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("how soon to be killed", func(t *testing.T) {
		spec := b.spec("print", "/proc/self/oom_score_adj")
		spec.Resources.OOMScoreAdj = 900
		if got := b.output(spec); got != "900\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("privileged", func(t *testing.T) {
		spec := b.spec("try", "mount")
		spec.Privileged = true
		spec.Process.Capabilities = capabilities("CAP_SYS_ADMIN", "CAP_MKNOD")
		if got := b.output(spec); got != "answer: <nil>\n" {
			t.Errorf("mounting: %q", got)
		}
		spec = b.spec("list", "/dev")
		spec.Privileged = true
		if got := b.output(spec); !strings.Contains(got, "/dev/kmsg ") {
			t.Errorf("does not see the node's devices: %q", got)
		}
	})
	if s.Seccomp != nil {
		t.Run("seccomp", func(t *testing.T) { checkSeccomp(t, b) })
	}
}

func checkCapabilities(t *testing.T, b *bench) {
	for name, row := range map[string]struct {
		caps *specs.LinuxCapabilities
		uid  uint32
		want string
	}{
		"none":           {&specs.LinuxCapabilities{}, 0, "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000000000 CapAmb: 0000000000000000"},
		"two for root":   {capabilities("CAP_CHOWN", "CAP_NET_RAW"), 0, "CapInh: 0000000000000000 CapPrm: 0000000000002001 CapEff: 0000000000002001 CapBnd: 0000000000002001 CapAmb: 0000000000000000"},
		"two for a user": {capabilities("CAP_CHOWN", "CAP_NET_RAW"), 1000, "CapInh: 0000000000000000 CapPrm: 0000000000000000 CapEff: 0000000000000000 CapBnd: 0000000000002001 CapAmb: 0000000000000000"},
		"an ambient one for a user": {&specs.LinuxCapabilities{
			Bounding: []string{"CAP_NET_RAW"}, Permitted: []string{"CAP_NET_RAW"}, Effective: []string{"CAP_NET_RAW"},
			Inheritable: []string{"CAP_NET_RAW"}, Ambient: []string{"CAP_NET_RAW"},
		}, 1000, "CapInh: 0000000000002000 CapPrm: 0000000000002000 CapEff: 0000000000002000 CapBnd: 0000000000002000 CapAmb: 0000000000002000"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := b.spec("status", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
			spec.Process.Capabilities, spec.Process.User.UID = row.caps, row.uid
			got := strings.ReplaceAll(strings.TrimSpace(b.output(spec)), "\n", " ")
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("they hold", func(t *testing.T) {
		spec := b.spec("try", "chown", "/etc/seen")
		spec.Process.Capabilities = &specs.LinuxCapabilities{}
		if got := b.output(spec); !strings.Contains(got, unix.EPERM.Error()) {
			t.Errorf("got %q", got)
		}
	})
}

func checkSeccomp(t *testing.T, b *bench) {
	profile, err := b.subject.Seccomp([]string{"CAP_CHOWN"})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		profile *specs.LinuxSeccomp
		nnp     bool
		args    []string
		want    string
	}{
		"the default profile is on":             {profile, true, []string{"status", "Seccomp"}, "Seccomp: 2\n"},
		"the default profile without nnp":       {profile, false, []string{"status", "Seccomp"}, "Seccomp: 2\n"},
		"unconfined":                            {nil, true, []string{"status", "Seccomp"}, "Seccomp: 0\n"},
		"user namespaces are refused":           {profile, true, []string{"try", "unshare"}, "answer: operation not permitted\n"},
		"ordinary programs run under a profile": {profile, true, []string{"print", "/etc/seen"}, "from the image\n"},
		"a profile of the user's own": {&specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"fchownat", "chown"}, Action: specs.ActErrno, ErrnoRet: new(uint(unix.EXDEV))}},
		}, true, []string{"try", "chown", "/etc/seen"}, "answer: chown /etc/seen: invalid cross-device link\n"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := b.spec(row.args...)
			spec.Seccomp, spec.Process.NoNewPrivileges = row.profile, row.nnp
			if got := b.output(spec); got != row.want {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("it holds for further commands", func(t *testing.T) {
		if runtime.GOARCH != "amd64" {
			return
		}
		spec := b.spec("sleep")
		spec.Seccomp = profile
		b.start(spec)
		if got, _ := b.exec(spec.ID, "try", "keyctl"); !strings.Contains(got, "operation not permitted") {
			t.Errorf("got %q", got)
		}
	})
}
