package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// answer is one request as the client saw it.
type answer struct {
	sent, done time.Time
	body       string
	err        error
}

// ask sends one request to a host and demands a 200.
func ask(ctx context.Context, client *http.Client, address, host, query string) answer {
	a := answer{sent: time.Now()}
	a.body, a.err = func() (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/?"+query, http.NoBody)
		if err != nil {
			return "", err
		}
		req.Host = host
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d: %s", res.StatusCode, body)
		}
		return string(body), err
	}()
	a.done = time.Now()
	return a
}

// newClient keeps its connections, or opens one for each request.
func newClient(lasting bool) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, DisableKeepAlives: !lasting, MaxIdleConnsPerHost: 1,
	}}
}

// crowd is a number of clients that send one request after another; where to, can change.
type crowd struct {
	stop func()

	mu     sync.Mutex // guards the rest
	hosts  []string   // clients take them in turns
	sent   int
	failed []error
}

// newCrowd starts n clients, of which every eighth opens a connection for each request.
func newCrowd(ctx context.Context, n int, address, query string, hosts []string) *crowd {
	ctx, cancel := context.WithCancel(ctx)
	c := &crowd{hosts: hosts}
	var wg sync.WaitGroup
	for k := range n {
		client := newClient(k%8 != 0)
		wg.Go(func() {
			defer client.CloseIdleConnections()
			for turn := k; ctx.Err() == nil; turn++ {
				// What was sent is waited for, also when the crowd is told to stop.
				c.count(ask(context.WithoutCancel(ctx), client, address, c.host(turn), query))
			}
		})
	}
	c.stop = func() { cancel(); wg.Wait() }
	return c
}

func (c *crowd) host(turn int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hosts[turn%len(c.hosts)]
}

func (c *crowd) move(hosts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts = hosts
}

func (c *crowd) count(a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
	if a.err != nil {
		c.failed = append(c.failed, fmt.Errorf("after %s: %w", a.done.Sub(a.sent).Round(time.Millisecond), a.err))
	}
}

// so far: requests answered or failed, and the failures.
func (c *crowd) counted() (int, []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent, c.failed
}
