package bundle

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

func TestTranslateMounts(t *testing.T) {
	const safe = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	for name, row := range map[string]struct {
		in   specs.Mount
		want wire.Mount
		bind Bind
		bad  bool
	}{
		"a file system": {
			in:   specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: "/m", Options: []string{"nosuid", "noexec", "nodev", "size=1k"}},
			want: wire.Mount{Target: "/m", Type: "tmpfs", Attr: safe, Options: []wire.Option{{Key: "size", Value: "1k"}, {Key: "source", Value: "tmpfs"}}},
		},
		"a folder": {
			in:   specs.Mount{Source: "/a", Destination: "/m", Options: []string{"rbind", "ro", "rslave"}},
			want: wire.Mount{Target: "/m", Bind: true, Attr: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_SLAVE},
			bind: Bind{Source: "/a", Recursive: true},
		},
		"a folder read-only all the way down": {
			in:   specs.Mount{Type: "bind", Source: "/a", Destination: "/m", Options: []string{"rbind", "rro"}},
			want: wire.Mount{Target: "/m", Bind: true, Attr: unix.MOUNT_ATTR_RDONLY, Recursive: true},
			bind: Bind{Source: "/a", Recursive: true},
		},
		"a bind with an option nobody knows": {in: specs.Mount{Type: "bind", Source: "/a", Destination: "/m", Options: []string{"tasty"}}, bad: true},
		"a bind of a relative path":          {in: specs.Mount{Type: "bind", Source: "a", Destination: "/m"}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, bind, err := translate(row.in)
			if (err != nil) != row.bad {
				t.Fatalf("error %v", err)
			}
			if row.bad {
				return
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(row.bind, bind); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBuildLeavesOutWhatTheNodeCannotGive(t *testing.T) {
	all := Names(^uint64(0))
	c := runtime.ContainerSpec{
		Process:   specs.Process{Args: []string{"x"}, Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}},
		Resources: runtime.Resources{OOMScoreAdj: -997},
	}
	spec := Build(runtime.SandboxSpec{}, c, Place{Allowed: mask([]string{"CAP_CHOWN", "CAP_KILL"}), OOMScoreAdj: 100})
	if diff := cmp.Diff([]string{"CAP_CHOWN", "CAP_KILL"}, spec.Process.Capabilities.Bounding); diff != "" {
		t.Error(diff)
	}
	if *spec.Process.OOMScoreAdj != 100 {
		t.Errorf("oom_score_adj %d", *spec.Process.OOMScoreAdj)
	}
	spec = Build(runtime.SandboxSpec{}, c, Place{Allowed: ^uint64(0), OOMScoreAdj: 100})
	if *spec.Process.OOMScoreAdj != -997 {
		t.Errorf("with all capabilities oom_score_adj %d", *spec.Process.OOMScoreAdj)
	}
}

func TestNamespacesFollowTheSandbox(t *testing.T) {
	find := func(spec *specs.Spec, kind specs.LinuxNamespaceType) (string, bool) {
		for _, n := range spec.Linux.Namespaces {
			if n.Type == kind {
				return n.Path, true
			}
		}
		return "", false
	}
	c := runtime.ContainerSpec{Process: specs.Process{Args: []string{"x"}}}
	own := Build(runtime.SandboxSpec{}, c, Place{Guard: 7})
	if path, ok := find(own, specs.PIDNamespace); !ok || path != "" {
		t.Errorf("own processes: %q, %t", path, ok)
	}
	if path, _ := find(own, specs.NetworkNamespace); path != "/proc/7/ns/net" {
		t.Errorf("network: %q", path)
	}
	if path, _ := find(Build(runtime.SandboxSpec{}, c, Place{Guard: 7, Pause: 8}), specs.PIDNamespace); path != "/proc/8/ns/pid" {
		t.Errorf("shared processes: %q", path)
	}
	if _, ok := find(Build(runtime.SandboxSpec{HostPID: true}, c, Place{Guard: 7}), specs.PIDNamespace); ok {
		t.Error("the node's processes: there is a namespace")
	}
}
