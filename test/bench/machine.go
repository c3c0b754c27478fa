package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// prepare builds what is measured beside ebb.
func (r *run) prepare(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("pods need root")
	}
	var err error
	if r.bin, err = filepath.Abs(r.bin); err != nil {
		return err
	}
	if _, err := os.Stat(r.bin); err != nil {
		return fmt.Errorf("finding ebb: %w; `make build` makes it", err)
	}
	if r.dir, err = os.MkdirTemp("", "ebb-bench-"); err != nil {
		return err
	}
	r.bare, r.hello = filepath.Join(r.dir, "bare"), filepath.Join(r.dir, "hello")
	if err := goBuild(ctx, ".", r.bare, "./test/bench/bare"); err != nil {
		return err
	}
	return goBuild(ctx, helloFolder, r.hello, ".")
}

// helloFolder is a module of its own, so that ebb can deploy it as a user would.
const helloFolder = "test/bench/testdata/hello"

func goBuild(ctx context.Context, dir, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// installation is an ebb of the benchmark's own.
type installation struct{ bin, data, http, api string }

func (r *run) install(name string) (*installation, error) {
	i := &installation{bin: r.bin, data: filepath.Join(r.dir, name)}
	var err error
	if i.http, err = freeAddress(); err != nil {
		return nil, err
	}
	i.api, err = freeAddress()
	return i, err
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

func (i *installation) up(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	_, err := i.do(ctx, "", "up", "--detach", "--http", i.http, "--api", i.api)
	return time.Since(began), err
}

func (i *installation) down() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	_, err := i.do(ctx, "", "down")
	return err
}

// do runs a verb and gives what it printed.
func (i *installation) do(ctx context.Context, stdin string, args ...string) (string, error) {
	if args[0] == "kubectl" {
		args = append([]string{"kubectl", "--data", i.data}, args[1:]...)
	} else {
		args = append(args, "--data", i.data)
	}
	cmd := exec.CommandContext(ctx, i.bin, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ebb %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func (i *installation) pid(ctx context.Context) (int, error) {
	out, err := i.do(ctx, "", "status")
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(out, "\n") {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "pid" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("status prints no pid")
}

// fetch sends one request to a host by an address and demands a 200; it returns the time to the
// first byte of the answer. Every call opens a connection, as a new client would.
func fetch(ctx context.Context, address, host string) (time.Duration, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	req.Host = host
	transport := &http.Transport{DisableKeepAlives: true}
	began := time.Now()
	res, err := transport.RoundTrip(req)
	took := time.Since(began)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", res.StatusCode, bytes.TrimSpace(body))
	}
	return took, res.Header, err
}

// await asks at a short interval until the answer is yes.
func await(ctx context.Context, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ask()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// noisy is the environment's word for a machine that never is quiet.
const noisy = "NOISY"

// quiet waits until the machine is mostly idle, so that one figure's leftovers do not spoil another.
// Where others work too, NOISY=1 in the environment does without; times mean little then, and each
// figure says so.
func quiet(ctx context.Context) error {
	if os.Getenv(noisy) != "" {
		return nil
	}
	return await(ctx, "a quiet machine", func() (bool, error) {
		a, err := idleShare()
		if err != nil {
			return false, err
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
		b, err := idleShare()
		return err == nil && (b.idle-a.idle) > 0.75*(b.total-a.total), err
	})
}

type machineTime struct{ idle, total float64 }

func idleShare() (machineTime, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineTime{}, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	var t machineTime
	for n, field := range strings.Fields(line)[1:] {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return t, err
		}
		t.total += v
		if n == 3 {
			t.idle = v
		}
	}
	return t, nil
}

// clockTick is USER_HZ, which Linux fixes at 100 for all its users.
const clockTick = 10 * time.Millisecond

// cpuTime is what a process has used so far, all threads, user and system.
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// residentMB is a process's resident memory in MB (10^6 bytes).
func residentMB(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	return float64(pages*os.Getpagesize()) / 1e6, err
}

// quantile takes sorted or unsorted samples; q between 0 and 1.
func quantile(samples []time.Duration, q float64) time.Duration {
	s := slices.Clone(samples)
	slices.Sort(s)
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
