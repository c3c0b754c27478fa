package nsq

import (
	"strings"
	"testing"
	"time"

	"ebb.dev/ebb/internal/adapter/trigger"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/process"
	"ebb.dev/ebb/internal/adapter/trigger/triggertest/servers"
)

type server struct{ servers.NSQ }

func (s server) set(t *testing.T, n int) {
	t.Helper()
	for _, node := range s.Nodes {
		if err := node.GetTopic("jobs").GetChannel("workers").Empty(); err != nil {
			t.Fatal(err)
		}
	}
	s.Publish(t, "jobs", n)
}

func (s server) untouched(t *testing.T, n int) {
	t.Helper()
	var depth int64
	for _, node := range s.Nodes {
		depth += node.GetTopic("jobs").GetChannel("workers").Depth()
	}
	if depth != int64(n) {
		t.Errorf("%d messages are left of %d", depth, n)
	}
}

func TestNSQ(t *testing.T) {
	s := server{servers.StartNSQ(t)}
	s.Topic(t, "jobs", "workers")
	triggertest.Run(t, triggertest.Subject{
		Type: "nsq", Build: New,
		Metadata: map[string]string{
			"nsqLookupdHTTPAddresses": s.Lookup, "topic": "jobs", "channel": "workers",
			"depthThreshold": "5", "activationDepthThreshold": "2",
		},
		Metric: "nsq-jobs-workers", Target: "5",
		Required: []string{"nsqLookupdHTTPAddresses", "topic", "channel"},
		Wrong:    map[string]string{"depthThreshold": "0", "activationDepthThreshold": "-1", "useHttps": "perhaps"},
		Set:      s.set, Untouched: s.untouched,
		Down:   map[string]string{"nsqLookupdHTTPAddresses": "127.0.0.1:" + process.Port(t)},
		Within: 300 * time.Millisecond,
	})
}

func build(t testing.TB, env trigger.Environment, s server, topic, channel string) trigger.Source {
	t.Helper()
	c := trigger.Config{Environment: env}
	c.TriggerMetadata = map[string]string{"nsqLookupdHTTPAddresses": s.Lookup, "topic": topic, "channel": channel}
	made, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

func read(t *testing.T, made trigger.Source) int64 {
	t.Helper()
	got, err := made.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got[0].Value.Value()
}

// eventually waits until a check holds.
func eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

func TestATopicWithoutTheChannelKeepsItsMessages(t *testing.T) {
	s := server{servers.StartNSQ(t)}
	env := triggertest.Environment(t)
	made := build(t, env, s, "new", "workers")
	if got := read(t, made); got != 0 {
		t.Errorf("a topic that is not there has %d messages", got)
	}
	woken := make(chan struct{}, 100)
	defer made.(trigger.Pusher).Watch(trigger.Idle, func() { woken <- struct{}{} })()
	<-woken
	s.Publish(t, "new", 6)
	select {
	case <-woken:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody told of the first messages of a topic")
	}
	eventually(t, "the topic's messages count", func() bool { return read(t, made) == 6 })
	for _, node := range s.Nodes {
		node.GetTopic("new").GetChannel("workers")
	}
	eventually(t, "the first channel gets them all", func() bool {
		return s.Nodes[0].GetTopic("new").GetChannel("workers").Depth()+s.Nodes[1].GetTopic("new").GetChannel("workers").Depth() == 6
	})
}

func TestPausedChannelsDoNotCount(t *testing.T) {
	s := server{servers.StartNSQ(t)}
	s.Topic(t, "jobs", "workers")
	made := build(t, triggertest.Environment(t), s, "jobs", "workers")
	s.Publish(t, "jobs", 8)
	eventually(t, "eight wait", func() bool { return read(t, made) == 8 })
	if err := s.Nodes[0].GetTopic("jobs").GetChannel("workers").Pause(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, made); got != 4 {
		t.Errorf("with one of two channels paused %d wait; want 4", got)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	s := server{servers.StartNSQ(t)}
	s.Topic(t, "jobs", "workers")
	made := build(t, triggertest.Environment(t), s, "jobs", "workers")
	channels := func() (names []string) {
		for _, node := range s.Nodes {
			for _, topic := range node.GetStats("jobs", "", false).Topics {
				for _, c := range topic.Channels {
					names = append(names, c.ChannelName)
				}
			}
		}
		return names
	}
	stop := made.(trigger.Pusher).Watch(trigger.Idle, func() {})
	eventually(t, "both nodes are listened to", func() bool { return strings.Count(strings.Join(channels(), " "), ephemeral) == 2 })
	stop()
	eventually(t, "only the workers' channels are left", func() bool { return len(channels()) == 2 })
}

func BenchmarkWake(b *testing.B) {
	s := server{servers.StartNSQ(b)}
	s.Topic(b, "jobs", "workers")
	env := trigger.Environment{}
	triggertest.Bench(b, &env)
	triggertest.Wakes(b, build(b, env, s, "jobs", "workers"), func() { s.Publish(b, "jobs", 1) })
}
