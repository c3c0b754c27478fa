package container

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/bundle"
	"ebb.dev/ebb/internal/adapter/runtime/container/wire"
)

// ociProgram is an OCI runtime found on the node.
type ociProgram struct {
	path  string
	flags []string // global ones, before the verb
}

// findOCI looks for the programs behind RuntimeClass handlers.
func findOCI() map[string]ociProgram {
	found := map[string]ociProgram{}
	if path, err := exec.LookPath("runc"); err == nil {
		found["runc"] = ociProgram{path: path}
	}
	return found
}

// Handlers are the RuntimeClass handlers this node can run; "" is always one.
func (r *Runtime) Handlers() []string {
	list := []string{""}
	for name := range r.node.oci {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// describeOCI writes the same spec as a bundle and leaves the rest to the OCI runtime. Sources of
// binds become places in the bundle: the guardian mounts there what was opened here.
func (r *Runtime) describeOCI(s *sandbox, c runtime.ContainerSpec, start *wire.Start, files *fdList) error {
	dir := s.file("b", c.ID)
	for _, d := range []string{dir, filepath.Join(dir, "rootfs"), filepath.Join(dir, "m")} {
		if err := os.Mkdir(d, 0o711); err != nil { //nolint:gosec // the container's users pass through it
			return fmt.Errorf("making the bundle: %w", err)
		}
	}
	place := r.place(s, start.Container.Cgroup)
	place.Root = filepath.Join(dir, "rootfs")
	spec := bundle.Build(s.spec, c, place)
	for i, m := range spec.Mounts {
		if m.Source == place.Shm || !isBind(m) {
			continue
		}
		folder, err := files.bind(bundle.Bind{Source: m.Source, Recursive: slices.Contains(m.Options, "rbind")})
		if err != nil {
			return err
		}
		name := "m/" + strconv.Itoa(i)
		start.Stage.Mounts = append(start.Stage.Mounts, wire.Mount{Target: name, Bind: true, Dir: folder})
		spec.Mounts[i].Source = filepath.Join(dir, name)
	}
	start.Stage.Root.At = place.Root
	start.Stage.Process.Terminal = c.Process.Terminal
	program := r.node.oci[s.spec.Handler]
	start.Container.OCI = &wire.OCI{Binary: program.path, Root: s.file("b", "state"), Flags: program.flags, Bundle: dir}
	return writeJSON(filepath.Join(dir, "config.json"), spec)
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}
