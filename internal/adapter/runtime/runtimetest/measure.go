package runtimetest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"ebb.dev/ebb/internal/adapter/runtime"
)

// retryTime is how often a measured start asks whether the server answers.
const retryTime = 100 * time.Microsecond

// Dialer connects to a port of a sandbox that was started.
type Dialer func(ctx context.Context, sb runtime.Sandbox, port uint16) (net.Conn, error)

// Start is one measured start of a pod.
type Start struct {
	Sandbox time.Duration // StartSandbox returned
	Started time.Duration // StartContainer returned
	Answer  time.Duration // the first HTTP 200 was read; all from the first call on
}

// Pod is what is started to be measured: one container of a layer whose program serves HTTP on port
// 8000, by a RuntimeClass handler, and how to reach it.
type Pod struct {
	Layer, Handler string
	Dial           Dialer
}

// Measure starts a pod with limits and returns once it answered. The sandbox stays; stop it by the
// ID returned.
func Measure(ctx context.Context, rt runtime.Runtime, p Pod) (string, Start, error) {
	id := unique("measured")
	var s Start
	begin := time.Now()
	sb, err := rt.StartSandbox(ctx, runtime.SandboxSpec{
		ID: id, Namespace: "default", Name: id, Handler: p.Handler, Hostname: "measured",
		Resources: runtime.Resources{CPUShares: 512, CPUQuotaUS: 100_000, CPUPeriodUS: 100_000, MemoryBytes: 256 << 20},
	})
	if err != nil {
		return id, s, err
	}
	s.Sandbox = time.Since(begin)
	_, err = rt.StartContainer(ctx, runtime.ContainerSpec{
		ID: id + "-main", SandboxID: id, Name: "main", RootFS: []string{p.Layer},
		Process: specs.Process{
			Args: []string{"/pod", "serve", ":8000"}, Cwd: "/", User: specs.User{UID: 65532, GID: 65532},
			NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{},
		},
		Resources: runtime.Resources{CPUShares: 512, CPUQuotaUS: 100_000, CPUPeriodUS: 100_000, MemoryBytes: 256 << 20},
	})
	if err != nil {
		return id, s, err
	}
	s.Started = time.Since(begin)
	err = UntilAnswer(ctx, func() (net.Conn, error) { return p.Dial(ctx, sb, 8000) })
	s.Answer = time.Since(begin)
	return id, s, err
}

// UntilAnswer asks by HTTP, every 0.1 ms over a new connection, until the answer is 200.
func UntilAnswer(ctx context.Context, dial func() (net.Conn, error)) error {
	tick := time.NewTicker(retryTime)
	defer tick.Stop()
	for {
		last := ask(ctx, dial)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for an answer: %w: %w", ctx.Err(), last)
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, dial func() (net.Conn, error)) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pod/", nil)
	if err != nil {
		return err
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// Burst starts count pods at the same moment and stops them afterwards. The starts come back
// sorted by answer, with the time until the last one answered.
func Burst(ctx context.Context, rt runtime.Runtime, p Pod, count int) ([]Start, time.Duration, error) {
	var wg sync.WaitGroup
	starts, ids, errs := make([]Start, count), make([]string, count), make([]error, count)
	begin := time.Now()
	for i := range count {
		wg.Go(func() { ids[i], starts[i], errs[i] = Measure(ctx, rt, p) })
	}
	wg.Wait()
	wall := time.Since(begin)
	for i, id := range ids {
		wg.Go(func() {
			if err := rt.StopSandbox(ctx, id); err != nil && errs[i] == nil {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, wall, err
		}
	}
	slices.SortFunc(starts, func(a, b Start) int { return int(a.Answer - b.Answer) })
	return starts, wall, nil
}
