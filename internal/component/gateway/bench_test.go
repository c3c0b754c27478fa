package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ebb.dev/ebb/internal/domain/traffic"
)

// The benchmark's application and clients run in processes of their own, so that the processor time
// measured is the proxy's alone.
const benchRole = "EBB_BENCH_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(benchRole) {
	case "application":
		benchApplication()
	case "clients":
		benchClients()
	default:
		os.Exit(m.Run())
	}
}

// benchApplication answers every request alike, until its input ends.
func benchApplication() {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // lives as long as the process
	if err != nil {
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, ln.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what counts
		os.Exit(0)
	}()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			br := bufio.NewReader(conn)
			for {
				length := 0
				for {
					line, err := br.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						break
					}
					if v, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
						length, _ = strconv.Atoi(strings.TrimSpace(v)) // 0 will do
					}
				}
				_, _ = br.Discard(length)                                                                                                                                  // shows at the next read
				_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\n\r\nhello world\n")) // shows at the next read
			}
		}()
	}
}

// benchClients sends requests over many connections for as long as it was told and prints how many.
func benchClients() {
	addr := os.Args[1]
	conns, _ := strconv.Atoi(os.Args[2]) // our own argument
	total, _ := strconv.Atoi(os.Args[3]) // our own argument
	size, _ := strconv.Atoi(os.Args[4])  // our own argument
	method, length := "GET", ""
	if size > 0 {
		method, length = "POST", fmt.Sprintf("Content-Length: %d\r\n", size)
	}
	request := fmt.Appendf(nil, "%s /some/path?q=1 HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n%s\r\n%s",
		method, host, length, strings.Repeat("x", size))
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			conn, err := net.Dial("tcp", addr) // lives as long as the process
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			br := bufio.NewReader(conn)
			for range total / conns {
				_, _ = conn.Write(request) // shows in the response
				resp, err := http.ReadResponse(br, nil)
				if err != nil || resp.StatusCode != http.StatusOK {
					fmt.Fprintln(os.Stderr, err, resp)
					os.Exit(1)
				}
				_, _ = io.Copy(io.Discard, resp.Body) // shows at the next read
			}
		})
	}
	wg.Wait()
	os.Exit(0)
}

// application starts the application's process and returns its address.
func application(b *testing.B) string {
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), benchRole+"=application")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// processorTime is what this process used so far.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load has n requests with bodies of that size sent by another process and returns the processor time of this one for each.
func load(b *testing.B, addr string, n, body int) time.Duration {
	const conns = 32
	cmd := exec.CommandContext(b.Context(), os.Args[0], addr, strconv.Itoa(conns), strconv.Itoa(n), strconv.Itoa(body))
	cmd.Env = append(os.Environ(), benchRole+"=clients", "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	before := processorTime(b)
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	return (processorTime(b) - before) / time.Duration(n/conns*conns)
}

// bufferPool is httputil.BufferPool as one would tune it.
type bufferPool struct{ sync.Pool }

func (p *bufferPool) Get() []byte  { return *p.Pool.Get().(*[]byte) }
func (p *bufferPool) Put(b []byte) { p.Pool.Put(&b) }

// reverseProxy serves Go's own proxy with a tuned transport.
func reverseProxy(b *testing.B, to string) string {
	target, err := url.Parse("http://" + to)
	if err != nil {
		b.Fatal(err)
	}
	pool := &bufferPool{}
	pool.New = func() any {
		buf := make([]byte, 32<<10)
		return &buf
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		},
		Transport: &http.Transport{
			MaxIdleConns: 1000, MaxIdleConnsPerHost: 1000, DisableCompression: true,
			IdleConnTimeout: time.Minute, WriteBufferSize: 4 << 10, ReadBufferSize: 4 << 10,
		},
		BufferPool: pool,
	}
	ln, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	b.Cleanup(func() { srv.Close() })
	return ln.Addr().String()
}

// BenchmarkProcessorTime compares the gateway with Go's ReverseProxy, in turns in the same run.
func BenchmarkProcessorTime(b *testing.B) {
	b.Run("GET", func(b *testing.B) { compare(b, 0) })
	b.Run("POST of 1 KiB", func(b *testing.B) { compare(b, 1<<10) })
}

func compare(b *testing.B, body int) {
	app := application(b)
	r := newRig(b, traffic.Settings{Timeout: time.Minute, ContainerConcurrency: 100})
	r.add(app)
	theirs := reverseProxy(b, app)
	const n = 20_000
	load(b, r.addr, n, body)
	load(b, theirs, n, body)
	var gateway, proxy time.Duration
	rounds := 0
	for b.Loop() {
		gateway += load(b, r.addr, n, body)
		proxy += load(b, theirs, n, body)
		rounds++
	}
	b.ReportMetric(float64(gateway.Nanoseconds())/1000/float64(rounds), "gateway-cpu-µs/req")
	b.ReportMetric(float64(proxy.Nanoseconds())/1000/float64(rounds), "reverseproxy-cpu-µs/req")
	b.ReportMetric(float64(gateway)/float64(proxy), "ratio")
}
