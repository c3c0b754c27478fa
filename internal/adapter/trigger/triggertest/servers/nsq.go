package servers

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nsqio/nsq/nsqd"
	"github.com/nsqio/nsq/nsqlookupd"

	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
)

// An NSQ is an nsqlookupd with two nsqd, within the process.
type NSQ struct {
	Lookup string // host and port of nsqlookupd's HTTP
	Nodes  []*nsqd.NSQD
}

// StartNSQ runs one.
func StartNSQ(t testing.TB) NSQ {
	t.Helper()
	quiet := log.New(io.Discard, "", 0)
	options := nsqlookupd.NewOptions()
	options.TCPAddress, options.HTTPAddress, options.Logger = "127.0.0.1:0", "127.0.0.1:0", quiet
	lookup, err := nsqlookupd.New(options)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = lookup.Main() }()
	t.Cleanup(lookup.Exit)
	s := NSQ{Lookup: lookup.RealHTTPAddr().String()}
	for range 2 {
		s.Nodes = append(s.Nodes, node(t, lookup.RealTCPAddr().String(), quiet))
	}
	return s
}

func node(t testing.TB, lookup string, quiet *log.Logger) *nsqd.NSQD {
	t.Helper()
	options := nsqd.NewOptions()
	for _, listener := range []struct {
		address *string
		told    *int
	}{{&options.TCPAddress, &options.BroadcastTCPPort}, {&options.HTTPAddress, &options.BroadcastHTTPPort}} {
		port := process.Port(t)
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		*listener.address, *listener.told = net.JoinHostPort("127.0.0.1", port), number
	}
	options.HTTPSAddress, options.BroadcastAddress, options.Logger = "", "127.0.0.1", quiet
	options.NSQLookupdTCPAddresses, options.DataPath = []string{lookup}, t.TempDir()
	made, err := nsqd.New(options)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = made.Main() }()
	t.Cleanup(made.Exit)
	return made
}

// Topic makes a topic with channels on both nsqd, and waits until nsqlookupd knows.
func (s NSQ) Topic(t testing.TB, topic string, channels ...string) {
	t.Helper()
	for _, node := range s.Nodes {
		made := node.GetTopic(topic)
		for _, name := range channels {
			made.GetChannel(name)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
		said, err := s.lookup(t.Context(), topic)
		if err == nil && strings.Count(said, "broadcast_address") == len(s.Nodes) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the nodes of topic %s are not known: %s, %v", topic, said, err)
		}
	}
}

// lookup reads what nsqlookupd knows of a topic.
func (s NSQ) lookup(ctx context.Context, topic string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Lookup+"/lookup?topic="+topic, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	said, err := io.ReadAll(response.Body)
	return string(said), err
}

// Publish adds messages to a topic, by both nsqd in turn.
func (s NSQ) Publish(t testing.TB, topic string, n int) {
	t.Helper()
	for i := range n {
		to := s.Nodes[i%len(s.Nodes)].GetTopic(topic)
		if err := to.PutMessage(nsqd.NewMessage(to.GenerateID(), []byte("work"))); err != nil {
			t.Fatal(err)
		}
	}
}
