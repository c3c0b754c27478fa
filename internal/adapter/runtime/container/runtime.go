// Package container runs pods as Linux containers.
//
// A sandbox is a guardian process in the pod's namespaces (cmd/shim) and a control group; the
// guardian is the parent of the containers, writes their logs and outlives us. What is known of a
// sandbox lies in a folder of its own, its slot:
//
//	pods/<slot>/slot.json     guardian, control group, network: written when made
//	pods/<slot>/sandbox.json  the pod it was given to; absent while parked
//	pods/<slot>/c/<id>.json   one container, written by the guardian; .told once its end was delivered
//	pods/<slot>/u/<id>/       its writable layer
//	pods/<slot>/socket        the guardian's
package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container/cgroup"
	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/adapter/runtime/container/seccomp"
	"ebb.dev/ebb/internal/adapter/runtime/container/shim"
)

// Config is what a Runtime needs.
type Config struct {
	StateDir   string        // kept between runs
	Pods       *network.Pods // nil: each pod gets a namespace with loopback only
	CgroupRoot string        // "ebb-<id>", below each hierarchy's root
	Log        *slog.Logger
	Park       int // sandboxes held ready
}

// Runtime implements runtime.Runtime with Linux containers.
type Runtime struct {
	cfg     Config
	log     *slog.Logger
	program *os.File     // the pod program in sealed memory
	groups  *cgroup.Tree // nil without control groups
	node    node
	queue   *exitQueue
	filters seccomp.Compiler
	parking *parking
	moves   chan int // guardians to move to their control group

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup // watchers and the parking loop

	mu        sync.Mutex // guards the maps, held briefly
	sandboxes map[string]*sandbox
	owners    map[string]*sandbox // by container ID
}

var _ runtime.Runtime = (*Runtime)(nil)

// New adopts what a former process left running and starts parking sandboxes. The context covers
// only the call itself.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Join(cfg.StateDir, "pods"), 0o700); err != nil {
		return nil, fmt.Errorf("making the runtime's folder: %w", err)
	}
	program, err := shim.Open()
	if err != nil {
		return nil, err
	}
	r := &Runtime{
		cfg: cfg, log: cfg.Log, program: program, queue: newExitQueue(), moves: make(chan int, 1024),
		sandboxes: map[string]*sandbox{}, owners: map[string]*sandbox{},
	}
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if r.groups, err = cgroup.Detect(); err != nil && !errors.Is(err, cgroup.ErrNone) {
		program.Close()
		return nil, err
	}
	if r.groups != nil {
		// All pods together weigh as much as the node's processors: by default a control group, with
		// whatever is in it, weighs as little as one process beside it.
		whole := runtime.Resources{CPUShares: 1024 * uint64(goruntime.NumCPU())}
		if err := errors.Join(r.groups.Make(r.guards()), r.groups.Limit(cfg.CgroupRoot, whole)); err != nil {
			r.log.Warn("no control groups", "error", err)
			r.groups = nil
		}
	}
	r.node = inspectNode(r.groups, cfg.CgroupRoot)
	if err := r.adopt(ctx); err != nil {
		r.Close()
		return nil, err
	}
	r.work.Go(r.moveGuards)
	r.parking = newParking(r)
	return r, nil
}

// DefaultSeccomp is the profile RuntimeDefault means for a container with these capabilities.
func DefaultSeccomp(capabilities []string) (*specs.LinuxSeccomp, error) {
	return seccomp.Default(capabilities)
}

// guards is the control group of the guardians: outside every pod's limits.
func (r *Runtime) guards() string { return r.cfg.CgroupRoot + "/guards" }

// Exits implements runtime.Runtime.
func (r *Runtime) Exits() <-chan runtime.Container { return r.queue.out }

// Close implements runtime.Runtime. Parked sandboxes are taken down, pods stay.
func (r *Runtime) Close() error {
	r.cancel()
	if r.parking != nil {
		r.parking.stop()
	}
	r.mu.Lock()
	for _, s := range r.sandboxes {
		s.unwatch()
	}
	r.mu.Unlock()
	r.work.Wait()
	r.queue.close()
	return r.program.Close()
}

// sandbox finds one.
func (r *Runtime) sandbox(id string) (*sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sandboxes[id]
	if s == nil {
		return nil, fmt.Errorf("sandbox %s: %w", id, runtime.ErrNotFound)
	}
	return s, nil
}

// owner finds a container's sandbox.
func (r *Runtime) owner(containerID string) (*sandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.owners[containerID]
	if s == nil {
		return nil, fmt.Errorf("container %s: %w", containerID, runtime.ErrNotFound)
	}
	return s, nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(context.Context) ([]runtime.Sandbox, error) {
	r.mu.Lock()
	all := make([]*sandbox, 0, len(r.sandboxes))
	for _, s := range r.sandboxes {
		all = append(all, s)
	}
	r.mu.Unlock()
	list := make([]runtime.Sandbox, 0, len(all))
	for _, s := range all {
		if v, ok := s.view(); ok {
			list = append(list, v)
		}
	}
	return list, nil
}
