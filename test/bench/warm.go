package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// barCPURatio is how much more CPU than Go's ReverseProxy a warm request may cost.
const barCPURatio = 1.3

// connections of the load.
const connections = 32

// contender is one proxy in front of the same backend.
type contender struct {
	name    string
	pid     int
	address string
	host    string
	rps     []float64
	cpu     []float64 // µs per request
}

// warmRequests measures proxies on one core, the load and the backend on the other, in turns, so
// that the machine's moods meet all alike.
func warmRequests(ctx context.Context, r *run) ([]result, error) {
	i, err := r.install("warm")
	if err != nil {
		return nil, err
	}
	if _, err := i.up(ctx); err != nil {
		return nil, err
	}
	defer func() { _ = i.down() }()
	ours, backend, err := i.contender(ctx)
	if err != nil {
		return nil, err
	}
	reverse, stopReverse, err := startReverseProxy(ctx, backend)
	if err != nil {
		return nil, err
	}
	defer stopReverse()
	nginx, stopNginx, err := r.startNginx(ctx, backend)
	if err != nil {
		return nil, err
	}
	defer stopNginx()
	all := []*contender{ours, reverse, nginx}
	for range r.samples(5, 2) {
		for _, c := range all {
			if err := c.load(ctx, time.Duration(r.samples(5, 2))*time.Second); err != nil {
				return nil, fmt.Errorf("loading %s: %w", c.name, err)
			}
		}
	}
	cpu, peer, fast := middle(ours.cpu), middle(reverse.cpu), middle(nginx.cpu)
	return []result{
		info("warm request, CPU of ebb", cpu, "µs", fmt.Sprintf("ReverseProxy %.1f µs, nginx %.1f µs", peer, fast)),
		atMost("warm request, CPU of ebb : CPU of ReverseProxy", cpu/peer, "ratio", barCPURatio, fmt.Sprintf("nginx : ReverseProxy %.2f", fast/peer)),
		info(fmt.Sprintf("throughput on one core at %d connections", connections), middle(ours.rps), "requests/s", fmt.Sprintf("ReverseProxy %.0f, nginx %.0f", middle(reverse.rps), middle(nginx.rps))),
	}, nil
}

func middle(samples []float64) float64 {
	d := make([]time.Duration, len(samples))
	for n, s := range samples {
		d[n] = time.Duration(s * 1000)
	}
	return float64(quantile(d, 0.5)) / 1000
}

// nginxFrame is the fastest plain configuration: one worker, no access log.
const nginxFrame = "daemon off; worker_processes 1; error_log /dev/stderr crit; pid %s/%s.pid;\nevents { worker_connections 4096; }\nhttp { access_log off; %s }\n"

func (r *run) startNginx(ctx context.Context, backend string) (*contender, func(), error) {
	address, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	conf := filepath.Join(r.dir, "proxy.conf")
	text := fmt.Sprintf(nginxFrame, r.dir, "proxy", fmt.Sprintf("upstream b { server %s; keepalive 512; keepalive_requests 1000000000; } server { listen %s; keepalive_requests 1000000000; location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ''; } }", backend, address))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, nil, err
	}
	pid, stop, err := startNginxWith(ctx, conf, 0)
	return &contender{name: "nginx", pid: pid, address: address, host: "hello"}, stop, err
}

// startNginxWith runs nginx pinned to a core and gives the pid of its one worker.
func startNginxWith(ctx context.Context, conf string, core int) (int, func(), error) {
	cmd := exec.CommandContext(ctx, "taskset", "-c", strconv.Itoa(core), "nginx", "-c", conf)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("starting nginx: %w", err)
	}
	stop := func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	worker := 0
	err := await(ctx, "nginx", func() (bool, error) {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if fields := strings.Fields(string(data)); err == nil && len(fields) == 1 {
			worker, err = strconv.Atoi(fields[0])
			return err == nil, err
		}
		return false, nil
	})
	if err != nil {
		stop()
	}
	return worker, stop, err
}

func startReverseProxy(ctx context.Context, backend string) (*contender, func(), error) {
	address, err := freeAddress()
	if err != nil {
		return nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, "taskset", "-c", "0", self, "reverse-proxy", address, backend)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting the ReverseProxy: %w", err)
	}
	return &contender{name: "ReverseProxy", pid: cmd.Process.Pid, address: address, host: "hello"}, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, nil
}

// reverseProxy is the peer: Go's own, with the transport and buffers tuned as one would.
func reverseProxy(address, backend string) error {
	runtime.GOMAXPROCS(1)
	pool := &buffers{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}}
	target := &url.URL{Scheme: "http", Host: backend}
	proxy := &httputil.ReverseProxy{
		Rewrite:    func(p *httputil.ProxyRequest) { p.SetURL(target); p.SetXForwarded() },
		BufferPool: pool,
		Transport:  &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 512, DisableCompression: true, IdleConnTimeout: time.Minute},
		ErrorLog:   log.New(os.Stderr, "", 0),
	}
	return http.ListenAndServe(address, proxy) //nolint:gosec // it lives for a measurement
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte { return *b.pool.Get().(*[]byte) }

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }

// contender deploys the hello with one instance and gives ebb as a contender, and the instance's
// address as the backend that all of them reach.
func (i *installation) contender(ctx context.Context) (*contender, string, error) {
	if _, err := i.do(ctx, "", "deploy", helloFolder, "--name", "warm"); err != nil {
		return nil, "", err
	}
	if _, err := i.do(ctx, "", "kubectl", "patch", "ksvc", "warm", "--type=merge", "-p", `{"spec":{"template":{"metadata":{"annotations":{"autoscaling.knative.dev/min-scale":"1","autoscaling.knative.dev/max-scale":"1"}}}}}`); err != nil {
		return nil, "", err
	}
	if _, err := i.do(ctx, "", "kubectl", "wait", "revision/warm-00002", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return nil, "", err
	}
	const ofSecond = "serving.knative.dev/revision=warm-00002"
	ip, err := i.do(ctx, "", "kubectl", "get", "pods", "-l", ofSecond, "-o", "jsonpath={.items[0].status.podIP}")
	if err != nil {
		return nil, "", err
	}
	if err := pinCommand("hello", 1); err != nil {
		return nil, "", err
	}
	pid, err := i.pid(ctx)
	if err != nil {
		return nil, "", err
	}
	return &contender{name: "ebb", pid: pid, address: i.http, host: "warm.default.localhost"}, ip + ":8080", pin(pid, 0)
}

// pinCommand pins every process of a command's name.
func pinCommand(name string, core int) error {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(data)) != name {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return err
		}
		if err := pin(pid, core); err != nil {
			return err
		}
	}
	return nil
}

// pin moves a process with all its threads to a core.
func pin(pid, core int) error {
	if out, err := exec.Command("taskset", "-apc", strconv.Itoa(core), strconv.Itoa(pid)).CombinedOutput(); err != nil {
		return fmt.Errorf("pinning process %d: %w: %s", pid, err, out)
	}
	return nil
}

var rate = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)

// load runs wrk against it and records throughput and CPU per request.
func (c *contender) load(ctx context.Context, during time.Duration) error {
	if err := await(ctx, c.name, func() (bool, error) {
		conn, err := net.DialTimeout("tcp", c.address, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil, nil
	}); err != nil {
		return err
	}
	before, err := cpuTime(c.pid)
	if err != nil {
		return err
	}
	began := time.Now()
	cmd := exec.CommandContext(ctx, "taskset", "-c", "1", "wrk", "-t1", "-c", strconv.Itoa(connections), "-d", fmt.Sprintf("%ds", int(during.Seconds())), "-H", "Host: "+c.host, "http://"+c.address+"/")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("running wrk: %w: %s", err, out)
	}
	if bytes.Contains(out, []byte("Non-2xx")) || bytes.Contains(out, []byte("Socket errors")) {
		return fmt.Errorf("some requests failed:\n%s", out)
	}
	after, err := cpuTime(c.pid)
	if err != nil {
		return err
	}
	match := rate.FindSubmatch(out)
	if match == nil {
		return fmt.Errorf("reading wrk's report: %s", out)
	}
	rps, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		return err
	}
	c.rps = append(c.rps, rps)
	c.cpu = append(c.cpu, float64((after-before).Microseconds())/(rps*time.Since(began).Seconds()))
	return nil
}
