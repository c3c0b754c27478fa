package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/endpoint"
)

const (
	// tick is how often one question is asked for all consumers of an account that are watched.
	tick = 200 * time.Millisecond
	// largest is how much of an answer is read.
	largest = 64 << 20
)

// errPlace does not quote the address, which may have a password in it.
var errPlace = errors.New("asking the monitoring of NATS: natsServerMonitoringEndpoint is no host and port")

// A place is where an account is monitored.
type place struct {
	https          bool
	host, name, id string
}

// A consumer is the one whose lag is asked for.
type consumer struct{ stream, name string }

// An account is what triggers of one JetStream account share.
type account struct {
	at      place
	client  *http.Client
	timeout time.Duration
	poller  *endpoint.Poller[consumer, int64]
	jsz     *endpoint.Batch[string, *jsz] // by the host asked

	mu      sync.Mutex // guards leaders
	leaders map[consumer]leader
}

// A leader is the server that leads a consumer; only it knows the lag.
type leader struct{ name, host string }

func newAccount(at place, c trigger.Config) *account {
	transport := &http.Transport{
		DialContext: c.Dial, Proxy: http.ProxyFromEnvironment, MaxConnsPerHost: 2, MaxIdleConnsPerHost: 2,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: c.NoKeepAlive,
	}
	if c.TLS != nil {
		transport.TLSClientConfig = c.TLS.Clone()
	}
	a := &account{
		at: at, client: &http.Client{Transport: transport}, timeout: c.Timeout(), leaders: map[consumer]leader{},
	}
	a.jsz = endpoint.NewBatch(a.askAll)
	a.poller = endpoint.NewPoller(c.Shared, tick, a.lags)
	return a
}

func (a *account) close() { a.client.CloseIdleConnections() }

type jsz struct {
	Accounts []accountDetail `json:"account_details"`
	Meta     struct {
		Size int `json:"cluster_size"`
	} `json:"meta_cluster"`
	err error
}

type accountDetail struct {
	ID      string         `json:"id"`
	Name    string         `json:"name"`
	Streams []streamDetail `json:"stream_detail"`
}

type streamDetail struct {
	Name   string `json:"name"`
	Config struct {
		Subjects []string        `json:"subjects"`
		Mirror   json.RawMessage `json:"mirror"`
		Sources  json.RawMessage `json:"sources"`
	} `json:"config"`
	Consumers []struct {
		Name       string `json:"name"`
		Pending    int64  `json:"num_pending"`
		AckPending int64  `json:"num_ack_pending"`
		Cluster    struct {
			Leader string `json:"leader"`
		} `json:"cluster"`
	} `json:"consumer_detail"`
}

type varz struct {
	Name    string   `json:"server_name"`
	Connect []string `json:"connect_urls"`
	Cluster struct {
		URLs []string `json:"urls"`
	} `json:"cluster"`
}

// A state is what a server says of a consumer.
type state struct {
	lag    int64
	leader string
}

func (j *jsz) stream(at place, name string) *streamDetail {
	for _, account := range j.Accounts {
		if account.ID != at.id && account.Name != at.name {
			continue
		}
		for i := range account.Streams {
			if account.Streams[i].Name == name {
				return &account.Streams[i]
			}
		}
	}
	return nil
}

func (j *jsz) find(at place, c consumer) (state, bool) {
	stream := j.stream(at, c.stream)
	if stream == nil {
		return state{}, false
	}
	for _, found := range stream.Consumers {
		if found.Name == c.name {
			return state{found.Pending + found.AckPending, found.Cluster.Leader}, true
		}
	}
	return state{}, false
}

// lag asks the consumer's leader how many messages wait for delivery or acknowledgement.
func (a *account) lag(ctx context.Context, c consumer) (int64, error) {
	a.mu.Lock()
	known, led := a.leaders[c]
	a.mu.Unlock()
	if led {
		answer, err := a.ask(ctx, known.host)
		if err == nil {
			if found, ok := answer.find(a.at, c); ok && found.leader == known.name {
				return found.lag, nil
			}
		}
		a.mu.Lock()
		delete(a.leaders, c)
		a.mu.Unlock()
	}
	answer, err := a.ask(ctx, a.at.host)
	if err != nil {
		return 0, err
	}
	if answer.Meta.Size > 1 {
		return a.search(ctx, c)
	}
	found, ok := answer.find(a.at, c)
	if !ok {
		return 0, fmt.Errorf("consumer %q not found in stream %q", c.name, c.stream)
	}
	return found.lag, nil
}

// lags answers for many consumers at once; for those it cannot find it says nothing.
func (a *account) lags(ctx context.Context, of []consumer) (map[consumer]int64, error) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	var last error
	answers := make(map[consumer]int64, len(of))
	// They share questions, as all that are asked while one is on its way are answered by the next.
	for _, c := range of {
		wait.Go(func() {
			lag, err := a.lag(ctx, c)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				last = err
				return
			}
			answers[c] = lag
		})
	}
	wait.Wait()
	if len(answers) == 0 && last != nil {
		return nil, last
	}
	return answers, nil
}

// search asks the servers of a cluster in turn which of them leads the consumer.
func (a *account) search(ctx context.Context, c consumer) (int64, error) {
	var self varz
	if err := a.get(ctx, a.at.host, "/varz", nil, &self); err != nil {
		return 0, err
	}
	urls, advertised := self.Connect, true
	if len(urls) == 0 {
		urls, advertised = self.Cluster.URLs, false
	}
	for _, at := range urls {
		name, host, err := a.server(ctx, at, advertised)
		if err != nil {
			return 0, err
		}
		answer, err := a.ask(ctx, host)
		if err != nil {
			return 0, err
		}
		if found, ok := answer.find(a.at, c); ok && found.leader == name {
			a.mu.Lock()
			a.leaders[c] = leader{name, host}
			a.mu.Unlock()
			return found.lag, nil
		}
	}
	return 0, fmt.Errorf("leader node not found for consumer %s", c.name)
}

// server returns the name and the monitored host of a server that a cluster tells of. Where servers
// advertise an address, monitoring is there too, on the port it has elsewhere; where they do not,
// the first part of the name of a route is the server's, and monitoring is below that name.
func (a *account) server(ctx context.Context, at string, advertised bool) (name, host string, err error) {
	if !advertised {
		name, _, _ = strings.Cut(at, ".")
		return name, name + "." + a.at.host, nil
	}
	host, _, err = net.SplitHostPort(at)
	if err != nil {
		host = at
	}
	if _, port, err := net.SplitHostPort(a.at.host); err == nil {
		host = net.JoinHostPort(host, port)
	}
	var that varz
	err = a.get(ctx, host, "/varz", nil, &that)
	return that.Name, host, err
}

func (a *account) ask(ctx context.Context, host string) (*jsz, error) {
	answer, err := a.jsz.Do(ctx, host)
	if err != nil {
		return nil, err
	}
	return answer, answer.err
}

func (a *account) askAll(ctx context.Context, hosts []string) (map[string]*jsz, error) {
	answers := make(map[string]*jsz, len(hosts))
	var wait sync.WaitGroup
	for _, host := range hosts {
		answer := &jsz{}
		answers[host] = answer
		wait.Go(func() {
			query := url.Values{"acc": {a.at.id}, "consumers": {"true"}, "config": {"true"}}
			answer.err = a.get(ctx, host, "/jsz", query, answer)
		})
	}
	wait.Wait()
	return answers, nil
}

func (a *account) get(ctx context.Context, host, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	at := url.URL{Scheme: "http", Host: host, Path: path, RawQuery: query.Encode()}
	if a.at.https {
		at.Scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return errPlace
	}
	response, err := a.client.Do(request)
	if err != nil {
		if at, ok := errors.AsType[*url.Error](err); ok {
			err = at.Err // the URL may hold a password
		}
		return fmt.Errorf("asking the monitoring of NATS for %s: %w", path, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the monitoring of NATS for %s: %s", path, response.Status)
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, largest)).Decode(into); err != nil {
		return fmt.Errorf("reading what the monitoring of NATS says: %w", err)
	}
	return nil
}
