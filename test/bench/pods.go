package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
	"ebb.dev/ebb/internal/adapter/runtime/container"
	"ebb.dev/ebb/internal/adapter/runtime/container/network"
	"ebb.dev/ebb/internal/platform/config"
	"ebb.dev/ebb/internal/platform/netns"
)

// Bars of a pod's start by the runtime alone, milliseconds.
const (
	barPod   = 20
	barFifty = 400
)

// machine is a runtime on a network of the benchmark's own.
type machine struct {
	folder  config.Folder
	id      config.Identity
	net     *netns.Net
	runtime *container.Runtime
	root    string
	handler string
	started int
}

// newMachine prepares the runtime alone; park says how many sandboxes it holds ready.
func (r *run) newMachine(ctx context.Context, name string, park int) (*machine, error) {
	folder, err := config.Folder(filepath.Join(r.dir, name)).Make()
	if err != nil {
		return nil, err
	}
	m := &machine{folder: folder}
	if m.id, err = config.LoadIdentity(folder); err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	m.net, err = netns.Open(ctx, netns.Config{
		Name: m.id.Name(), BindPath: filepath.Join(string(folder), "namespace"), NodeIP: m.id.NodeIP(), HostIP: m.id.HostIP(),
		PodCIDR: m.id.PodCIDR(), ServiceCIDR: m.id.ServiceCIDR(), LoadBalancerCIDR: m.id.LoadBalancerCIDR(), Log: log,
	})
	if err != nil {
		return nil, err
	}
	pods, err := network.New(m.net, m.id.PodCIDR(), filepath.Join(string(folder), "pods"))
	if err != nil {
		return nil, errors.Join(err, m.net.Remove())
	}
	m.runtime, err = container.New(ctx, container.Config{StateDir: folder.Runtime(), Pods: pods, CgroupRoot: m.id.Name(), Log: log, Park: park})
	if err != nil {
		return nil, errors.Join(err, m.net.Remove())
	}
	return m, m.makeRoot(r.hello)
}

// makeRoot is an image of one layer: the hello and nothing else.
func (m *machine) makeRoot(hello string) error {
	m.root = filepath.Join(string(m.folder), "root")
	if err := os.MkdirAll(m.root, 0o755); err != nil { //nolint:gosec // a root file system
		return err
	}
	program, err := os.ReadFile(hello)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.root, "hello"), program, 0o755) //nolint:gosec // a program
}

func (m *machine) close(ctx context.Context) error {
	err := m.runtime.Close()
	return errors.Join(err, container.CleanUp(ctx, container.Config{StateDir: m.folder.Runtime(), CgroupRoot: m.id.Name()}),
		network.CleanUp(filepath.Join(string(m.folder), "pods")), m.net.Remove())
}

// start runs one pod with limits and returns once it answered with a 200.
func (m *machine) start(ctx context.Context, id string) error {
	limits := runtime.Resources{CPUShares: 128, CPUQuotaUS: 100_000, CPUPeriodUS: 100_000, MemoryBytes: 128 << 20}
	sandbox, err := m.runtime.StartSandbox(ctx, runtime.SandboxSpec{ID: id, Namespace: "bench", Name: id, Hostname: id, Handler: m.handler, Resources: limits})
	if err != nil {
		return err
	}
	caps := []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"}
	filter, err := container.DefaultSeccomp(caps)
	if err != nil {
		return err
	}
	_, err = m.runtime.StartContainer(ctx, runtime.ContainerSpec{
		ID: id + "-main", SandboxID: id, Name: "main", RootFS: []string{m.root}, LogPath: filepath.Join(string(m.folder), id+".log"),
		Resources: limits, Seccomp: filter,
		Process: specs.Process{
			Args: []string{"/hello"}, Env: []string{"PATH=/"}, Cwd: "/", NoNewPrivileges: true, User: specs.User{UID: 65532, GID: 65532},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps},
		},
	})
	if err != nil {
		return err
	}
	return first200(ctx, net.JoinHostPort(sandbox.IP.String(), "8080"))
}

// first200 asks until the answer comes, with the short timeouts a gateway uses.
func first200(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 20 * time.Millisecond}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			pause(100 * time.Microsecond)
			continue
		}
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		head := make([]byte, 12)
		if err == nil {
			_, err = io.ReadFull(conn, head)
		}
		_ = conn.Close()
		if err == nil && string(head) == "HTTP/1.1 200" {
			return nil
		}
	}
	return ctx.Err()
}

func pause(d time.Duration) { <-time.After(d) }

func (m *machine) one(ctx context.Context) (time.Duration, error) {
	m.started++
	id := fmt.Sprintf("pod-%s%d", m.handler, m.started)
	began := time.Now()
	if err := m.start(ctx, id); err != nil {
		return 0, fmt.Errorf("starting a pod: %w", err)
	}
	return time.Since(began), nil
}

func (m *machine) stopAll(ctx context.Context) error {
	all, err := m.runtime.List(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		err = errors.Join(err, m.runtime.StopSandbox(ctx, s.ID))
	}
	return err
}

// series starts pods one after another, each on a quiet machine.
func (m *machine) series(ctx context.Context, n int) ([]time.Duration, error) {
	var out []time.Duration
	for range n {
		if err := quiet(ctx); err != nil {
			return nil, err
		}
		took, err := m.one(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, took)
		if err := m.stopAll(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// pods measures the runtime alone: one pod, one by runc, and fifty at once.
func pods(ctx context.Context, r *run) (_ []result, err error) {
	m, err := r.newMachine(ctx, "pods", 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close(context.WithoutCancel(ctx))) }()
	// The burst comes first: file systems without a journal shun the inodes of files just deleted,
	// which would charge it for the other pods' ends.
	if err := quiet(ctx); err != nil {
		return nil, err
	}
	slowest, err := m.burst(ctx, 50)
	if err != nil {
		return nil, err
	}
	alone, err := m.series(ctx, r.samples(25, 7))
	if err != nil {
		return nil, err
	}
	m.handler = "runc"
	runc, err := m.series(ctx, r.samples(15, 5))
	if err != nil {
		return nil, err
	}
	p50 := quantile(alone, 0.5)
	return []result{
		atMost("a pod alone, runtime called to first 200, p50", ms(p50), "ms", barPod, fmt.Sprintf("the same pod by runc: %.1f ms (×%.1f)", ms(quantile(runc, 0.5)), float64(quantile(runc, 0.5))/float64(p50))),
		atMost("50 pods at once, last 200", ms(slowest), "ms", barFifty, fmt.Sprintf("one alone: %.1f ms", ms(p50))),
	}, nil
}

// burst starts n pods at the same moment and gives the slowest's time.
func (m *machine) burst(ctx context.Context, n int) (time.Duration, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	var errs error
	began := time.Now()
	for k := range n {
		wg.Go(func() {
			err := m.start(ctx, fmt.Sprintf("burst-%d", k))
			mu.Lock()
			defer mu.Unlock()
			slowest, errs = max(slowest, time.Since(began)), errors.Join(errs, err)
		})
	}
	wg.Wait()
	return slowest, errors.Join(errs, m.stopAll(ctx))
}

// bareStart is what a cold start is compared with: the same program by the runtime alone.
func bareStart(ctx context.Context, r *run) (_ time.Duration, err error) {
	m, err := r.newMachine(ctx, "alone", 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.close(context.WithoutCancel(ctx))) }()
	samples, err := m.series(ctx, r.samples(15, 5))
	if err != nil {
		return 0, err
	}
	return quantile(samples, 0.5), nil
}
