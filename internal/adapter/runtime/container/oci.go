package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
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
	path   string
	flags  []string // global ones, before the verb
	kernel bool     // it runs a kernel for each pod, which the containers are put into
}

// findOCI looks for the programs behind RuntimeClass handlers.
func findOCI() map[string]ociProgram {
	found := map[string]ociProgram{}
	if path, err := exec.LookPath("runc"); err == nil {
		found["runc"] = ociProgram{path: path}
	}
	if path, err := exec.LookPath("runsc"); err == nil {
		// Files written are the pod's own on the node, so that they count and are seen there; rights and
		// system calls are as with the other handlers.
		found["gvisor"] = ociProgram{path: path, flags: []string{"--overlay2=none", "--net-raw", "--oci-seccomp"}, kernel: true}
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
	if program.kernel {
		kernel, err := r.describeKernel(s, place)
		if err != nil {
			return err
		}
		start.Container.OCI.Kernel = kernel
		spec.Annotations = annotate(spec.Annotations, "container", kernel.ID)
		if r.groups != nil {
			start.OOMFile = r.groups.OOMFile(s.kernelGroup())
		}
	}
	return writeJSON(filepath.Join(dir, "config.json"), spec)
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// kernelGroup is the control group of the pod's own kernel; the pod's limits are around it.
func (s *sandbox) kernelGroup() string { return s.Cgroup + "/kernel" }

// kernelID names the container that stands for the pod's own kernel.
func (s *sandbox) kernelID() string { return "kernel-" + filepath.Base(s.dir) }

// describeKernel writes the bundle of the container that holds the pod's own kernel, once.
func (r *Runtime) describeKernel(s *sandbox, place bundle.Place) (*wire.Kernel, error) {
	s.kernel.Lock()
	defer s.kernel.Unlock()
	k := &wire.Kernel{ID: s.kernelID(), Bundle: s.file("k")}
	config := filepath.Join(k.Bundle, "config.json")
	if _, err := os.Stat(config); err == nil {
		return k, nil
	}
	place.CgroupPath, place.Root = s.kernelGroup(), filepath.Join(k.Bundle, "rootfs")
	if err := os.MkdirAll(place.Root, 0o700); err != nil {
		return nil, fmt.Errorf("making the bundle of the pod's kernel: %w", err)
	}
	spec := bundle.Build(s.spec, runtime.ContainerSpec{
		Process: specs.Process{Args: []string{"/pause", "idle"}, Cwd: "/", NoNewPrivileges: true},
	}, place)
	spec.Annotations = annotate(nil, "sandbox", k.ID)
	spec.Hostname = s.spec.Hostname
	return k, writeJSON(config, spec)
}

// annotate says in containerd's words, which gVisor reads, what part of a pod a container is.
func annotate(have map[string]string, kind, kernel string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	out["io.kubernetes.cri.container-type"] = kind
	out["io.kubernetes.cri.sandbox-id"] = kernel
	return out
}

// measureKernel asks the pod's own kernel what a container uses; its memory is the whole pod's.
func (s *sandbox) measureKernel(ctx context.Context, rec wire.Container, out *runtime.ContainerStats) error {
	args := append([]string{"--root", rec.OCI.Root}, rec.OCI.Flags...)
	answer, err := exec.CommandContext(ctx, rec.OCI.Binary, append(args, "events", "--stats", rec.ID)...).Output()
	if err != nil {
		return fmt.Errorf("asking the pod's kernel: %w", err)
	}
	var event struct {
		Data struct {
			CPU    struct{ Usage struct{ Total uint64 } }
			Memory struct{ Usage struct{ Usage uint64 } }
			Pids   struct{ Current uint64 }
		}
	}
	if err := json.Unmarshal(answer, &event); err != nil {
		return fmt.Errorf("reading the kernel's answer: %w", err)
	}
	memory := event.Data.Memory.Usage.Usage
	out.CPUNanos, out.MemoryBytes, out.WorkingSet, out.RSSBytes = event.Data.CPU.Usage.Total, memory, memory, memory
	out.ProcessCount = event.Data.Pids.Current
	return nil
}

// dialKernel connects to a port inside the pod's own kernel, whose loopback no namespace of the node
// shows: the runtime joins the connection to a socket of ours.
func (s *sandbox) dialKernel(ctx context.Context, program ociProgram, port uint16) (net.Conn, error) {
	dir, err := os.MkdirTemp("", "ebb-dial-") // a socket's name is bounded, the pod's folder's is not
	if err != nil {
		return nil, fmt.Errorf("making a folder for the connection: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	args := append([]string{"--root", s.file("b", "state")}, program.flags...)
	args = append(args, "port-forward", "--stream", path, s.kernelID(), strconv.Itoa(int(port)))
	if out, err := exec.CommandContext(ctx, program.path, args...).CombinedOutput(); err != nil {
		return nil, errors.Join(err, errors.New(string(bytes.TrimSpace(out))))
	}
	return listener.Accept() // it connected before the program ended
}
