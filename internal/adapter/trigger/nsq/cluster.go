package nsq

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// tick is how often topics are asked for that cannot be listened to.
	tick = 500 * time.Millisecond
	// largest is how much of an answer is read.
	largest = 16 << 20
	// together is how many topics are asked for at once.
	together = 8
	// ephemeral is how names of topics and channels end that vanish with their last connection.
	ephemeral = "#ephemeral"
)

// A channel is one of a topic.
type channel struct{ topic, name string }

// A cluster is what triggers of the same nsqlookupd share.
type cluster struct {
	scheme  string
	lookup  []string
	client  *http.Client
	timeout time.Duration
	env     trigger.Environment
	topics  *endpoint.Batch[string, *topic]
	poller  *endpoint.Poller[channel, int64]
	hub     *endpoint.Hub[interest]
}

func newCluster(p parameters, c trigger.Config) *cluster {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS != nil {
		config = c.TLS.Clone()
	}
	config.InsecureSkipVerify = p.Unsafe
	cl := &cluster{
		scheme: "http", lookup: p.Lookup, timeout: c.Timeout(), env: c.Environment,
		client: &http.Client{Transport: &http.Transport{
			DialContext: c.Dial, Proxy: http.ProxyFromEnvironment, TLSClientConfig: config,
			MaxConnsPerHost: 2, MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
			DisableKeepAlives: c.NoKeepAlive,
		}},
	}
	if p.UseHTTPS {
		cl.scheme = "https"
	}
	cl.topics = endpoint.NewBatch(cl.ask)
	cl.poller = endpoint.NewPoller(c.Shared, tick, cl.depths)
	cl.hub = endpoint.NewHub(c.Shared, "NSQ at "+strings.Join(p.Lookup, ","), c.Log, cl.session)
	return cl
}

func (c *cluster) close() {
	c.hub.Close()
	c.client.CloseIdleConnections()
}

// A topic is what all nsqd say of one.
type topic struct {
	nodes map[node]*stats
	err   error
}

// A node is an nsqd.
type node struct{ http, tcp string }

type stats struct {
	Name     string `json:"topic_name"`
	Depth    int64  `json:"depth"`
	Channels []struct {
		Name   string `json:"channel_name"`
		Depth  int64  `json:"depth"`
		Paused bool   `json:"paused"`
	} `json:"channels"`
}

// depth returns how many messages wait for a channel: those of the topic where there is no such
// channel yet, none where it is paused.
func (t *topic) depth(channel string) (depth int64) {
	for _, s := range t.nodes {
		if s == nil {
			continue
		}
		own, paused, found := s.channel(channel)
		switch {
		case !found:
			depth += s.Depth
		case !paused:
			depth += own
		}
	}
	return depth
}

func (s *stats) channel(name string) (depth int64, paused, found bool) {
	for _, c := range s.Channels {
		if c.Name == name {
			return c.Depth, c.Paused, true
		}
	}
	return 0, false, false
}

// ask looks up who has the topics and asks them for their depths.
func (c *cluster) ask(ctx context.Context, names []string) (map[string]*topic, error) {
	answers := make(map[string]*topic, len(names))
	slots := make(chan struct{}, together)
	var wait sync.WaitGroup
	for _, name := range names {
		t := &topic{}
		answers[name] = t
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			t.nodes, t.err = c.topic(ctx, name)
		})
	}
	wait.Wait()
	return answers, nil
}

// depths answers for many channels at once.
func (c *cluster) depths(ctx context.Context, of []channel) (map[channel]int64, error) {
	names := map[string]bool{}
	for _, ch := range of {
		names[ch.topic] = true
	}
	states := map[string]*topic{}
	for name := range names {
		state, err := c.topics.Do(ctx, name)
		if err != nil {
			return nil, err
		}
		if state.err != nil {
			return nil, state.err
		}
		states[name] = state
	}
	answers := make(map[channel]int64, len(of))
	for _, ch := range of {
		answers[ch] = states[ch.topic].depth(ch.name)
	}
	return answers, nil
}

// topic asks every nsqlookupd for the nodes that have a topic, and each of them for its depth.
func (c *cluster) topic(ctx context.Context, name string) (map[node]*stats, error) {
	nodes := map[node]*stats{}
	for _, host := range c.lookup {
		var found struct {
			Producers []struct {
				HTTPPort int    `json:"http_port"`
				TCPPort  int    `json:"tcp_port"`
				Address  string `json:"broadcast_address"`
			} `json:"producers"`
		}
		if err := c.get(ctx, host, "lookup", url.Values{"topic": {name}}, &found); err != nil {
			return nil, fmt.Errorf("getting lookup from host '%s': %w", host, err)
		}
		for _, p := range found.Producers {
			nodes[node{net.JoinHostPort(p.Address, strconv.Itoa(p.HTTPPort)), net.JoinHostPort(p.Address, strconv.Itoa(p.TCPPort))}] = nil
		}
	}
	for at := range nodes {
		var said struct {
			Topics []stats `json:"topics"`
		}
		query := url.Values{"format": {"json"}, "include_clients": {"false"}, "include_mem": {"false"}, "topic": {name}}
		if err := c.get(ctx, at.http, "stats", query, &said); err != nil {
			return nil, fmt.Errorf("getting stats from host '%s': %w", at.http, err)
		}
		for i := range said.Topics {
			if said.Topics[i].Name == name {
				nodes[at] = &said.Topics[i]
			}
		}
	}
	return nodes, nil
}

// get asks one server; one that does not know what is asked for leaves the answer as it is.
func (c *cluster) get(ctx context.Context, host, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	at := url.URL{Scheme: c.scheme, Host: host, Path: "/" + path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json; charset=utf-8")
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	switch {
	case response.StatusCode == http.StatusNotFound && path == "lookup":
		return nil
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("unexpected status code '%s'", response.Status)
	}
	return json.NewDecoder(io.LimitReader(response.Body, largest)).Decode(into)
}
